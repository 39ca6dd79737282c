/* shell.h - text for a command line that a message advises. */
#ifndef P4_SHELL_H
#define P4_SHELL_H

/* A name as one word of a POSIX shell's command line, heap: itself, or in single quotes where it holds
 * another character than letters, digits and _@%+=:,./- does. NULL: memory is out. Local. */
char *p4_shell_word(const char *name);

#endif
