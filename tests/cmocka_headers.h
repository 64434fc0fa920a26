/* cmocka.h wants these before it. */
#ifndef TEST_CMOCKA_HEADERS_H
#define TEST_CMOCKA_HEADERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
