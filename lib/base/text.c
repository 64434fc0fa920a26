#include "base/text.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static void text_character(struct text *text, char character)
{
    if (text->length + 1 < sizeof text->bytes)
        text->bytes[text->length++] = character;
}

void text_string(struct text *text, const char *string)
{
    for (; *string != '\0'; string++)
        text_character(text, *string);
}

static void text_number(struct text *text, uint64_t number, unsigned base)
{
    char digits[20];
    unsigned count = 0;
    do {
        digits[count++] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number != 0);
    while (count > 0)
        text_character(text, digits[--count]);
}

void text_decimal(struct text *text, uint64_t number)
{
    text_number(text, number, 10);
}

void text_address(struct text *text, const void *address)
{
    text_string(text, "0x");
    text_number(text, (uintptr_t)address, 16);
}

void text_bytes(struct text *text, uint64_t bytes)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB"};
    unsigned unit = 0;
    uint64_t tenths = bytes <= UINT64_MAX / 10 ? bytes * 10 : UINT64_MAX;
    while (tenths >= 10240 && unit < 4) {
        tenths /= 1024;
        unit++;
    }
    text_decimal(text, tenths / 10);
    if (unit > 0) {
        text_character(text, '.');
        text_decimal(text, tenths % 10);
    }
    text_string(text, units[unit]);
}

void text_pad(struct text *text, size_t start, size_t width)
{
    size_t added = text->length - start;
    if (added >= width || start + width >= sizeof text->bytes)
        return;
    memmove(text->bytes + start + (width - added), text->bytes + start, added);
    memset(text->bytes + start, ' ', width - added);
    text->length = start + width;
}

void text_write_line(struct text *text, int descriptor)
{
    int saved_errno = errno;
    text->bytes[text->length++] = '\n';
    size_t written = 0;
    while (written < text->length) {
        ssize_t count = write(descriptor, text->bytes + written, text->length - written);
        if (count > 0)
            written += (size_t)count;
        else if (count == 0 || errno != EINTR)
            break;
    }
    text->length = 0;
    errno = saved_errno;
}
