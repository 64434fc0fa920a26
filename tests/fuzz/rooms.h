/* Every room's is_valid(), and the equations that several rooms share. */
#ifndef TEST_FUZZ_ROOMS_H
#define TEST_FUZZ_ROOMS_H

/* Ends the program where a room is not valid. Only while nobody else is in the library. */
void rooms_must_be_valid(void);

/* All blocks have been freed, and all other threads have ended. Gives everything back; what is not free then
 * was lost. The heaps are as new afterwards, so that inputs have little to do with one another. */
void rooms_must_be_empty(void);

#endif
