/* escape.h - text from outside on its way into a message: names and values that a file holds must not reach a
 * terminal as control codes, nor begin a line of their own. */
#ifndef P4_ESCAPE_H
#define P4_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The bytes of the UTF-8 character at `text`, 0 when it is none (RFC 3629); reads no further than a NUL.
 * *point, if not NULL, is the character. Local. */
int p4_utf8_char(const char *text, uint32_t *point);

/* Copies `text`, up to its NUL or `bytes`, into `to` [room], with an end; true: all of it fits. Control
 * characters become \n, \t, \x1b and so on, those that change the direction or line of a text \u202e, and
 * bytes that are not UTF-8 \xff. A backslash stays, so that text can pass several times. Local. */
bool p4_escape(char *to, size_t room, const char *text, size_t bytes);

#endif
