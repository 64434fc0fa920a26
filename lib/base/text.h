/* Lines of text built without allocating: for messages printed from inside malloc, where stdio may allocate.
 *
 * A line is a fixed buffer on the caller's stack. What does not fit is cut; the newline always fits.
 */
#ifndef TARN_BASE_TEXT_H
#define TARN_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
    size_t length; /* bytes used; length < sizeof(bytes) */
    char bytes[512];
};

void text_string(struct text *text, const char *string);
void text_decimal(struct text *text, uint64_t number);
/* As 0x1234. */
void text_address(struct text *text, const void *address);
/* One decimal and a binary unit, 12.5 MiB; whole bytes below 1 KiB. */
void text_bytes(struct text *text, uint64_t bytes);
/* At least `width` characters, padded with spaces on the left of what was added since `start`. */
void text_pad(struct text *text, size_t start, size_t width);
/* Ends the line and writes it to the file descriptor in one call; errors are ignored, errno is kept. */
void text_write_line(struct text *text, int descriptor);

#endif
