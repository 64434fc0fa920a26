#include "os/fault.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

static bool (*look_at)(const void *address, enum fault_access access);
static struct sigaction before_segv;
static struct sigaction before_bus;

#if defined(__x86_64__)
/* Bit 1 of the page fault's error code. */
static enum fault_access access_of(const ucontext_t *context)
{
    return (context->uc_mcontext.gregs[REG_ERR] & 2) != 0 ? FAULT_WRITE : FAULT_READ;
}
#elif defined(__aarch64__)
/* The records behind the registers end with one of size 0; "ESR" holds the syndrome, whose bit 6 says write.
 */
static enum fault_access access_of(const ucontext_t *context)
{
    const unsigned char *at = context->uc_mcontext.__reserved;
    const unsigned char *end = at + sizeof context->uc_mcontext.__reserved;
    while (at + sizeof(struct esr_context) <= end) {
        const struct esr_context *record = (const void *)at;
        if (record->head.magic == ESR_MAGIC)
            return (record->esr & 0x40) != 0 ? FAULT_WRITE : FAULT_READ;
        if (record->head.size == 0)
            break;
        at += record->head.size;
    }
    return FAULT_ACCESS;
}
#else
static enum fault_access access_of(const ucontext_t *context)
{
    (void)context;
    return FAULT_ACCESS;
}
#endif

/* The kernel's own faults come again when the instruction does; a signal that was sent would not. */
static void pass_on(int number, siginfo_t *info, void *context, const struct sigaction *before)
{
    if ((before->sa_flags & SA_SIGINFO) != 0) {
        before->sa_sigaction(number, info, context);
    } else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN) {
        before->sa_handler(number);
    } else if (info->si_code > 0 || before->sa_handler == SIG_DFL) {
        sigaction(number, before, NULL);
        if (info->si_code <= 0)
            raise(number);
    }
}

static void handle(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    const struct sigaction *before = number == SIGSEGV ? &before_segv : &before_bus;
    if (info->si_code > 0 && look_at(info->si_addr, access_of(context)))
        sigaction(number, before, NULL);
    else
        pass_on(number, info, context, before);
    errno = saved_errno;
}

void fault_watch(bool (*look)(const void *address, enum fault_access access))
{
    look_at = look;
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &before_segv);
    sigaction(SIGBUS, &action, &before_bus);
}
