/*
 * What is done while system calls fail: one function for each kind of use. Each is the same from run to run,
 * call for call: its threads run one after the other.
 *
 * Each block is held with its contents in a table, and verified whenever it is resized or freed. A request
 * may fail when a system call has failed before, with ENOMEM; what it was to resize is then as it was.
 */
#ifndef TEST_FAULTS_WORKLOADS_H
#define TEST_FAULTS_WORKLOADS_H

#include <stdbool.h>
#include <stddef.h>

/* The workload of this name, or NULL. */
void (*workload_named(const char *name))(void);

/* Requests that failed. */
extern unsigned long workload_refusals;

/* Verifies and frees all that is still held. */
void workload_free_all(void);

#endif
