/* What the program calls of loaded_module.c. */
#ifndef TEST_HOSTILE_LOADED_MODULE_H
#define TEST_HOSTILE_LOADED_MODULE_H

/* Gives this thread's block, and takes another for it. NULL: none. */
void *module_exchange(void *block);

#endif
