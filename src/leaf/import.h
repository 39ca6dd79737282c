/* import.h - shared libraries that a machine may lack: loaded at the first call of one of their functions.
 *
 * One program serves nodes with and without NVIDIA's libraries, so it must start without them. A file
 * NAME_import* defines the functions of a library that phase4 calls, under their own names, and hands each
 * call on: the code above includes the library's header, calls as usual, and gets the library's own kind of
 * error where the library is not there. A function that is missing in such a file is an error of the linker.
 */
#ifndef P4_IMPORT_H
#define P4_IMPORT_H

#include "src/leaf/base.h"

typedef struct p4_import {
    const char *file;   /* "libnccl.so.2": looked for where the system looks for libraries, */
    const char *folder; /* then here: where the build found it */
    void *handle;
    bool tried;
    char error[512]; /* why it cannot be loaded; "" while it can */
} p4_import;

/* Address of a function of the library, loading that at the first call; NULL where the library or the
 * function is not to be had (p4_import_error says why). Any thread may call. Local. */
void *p4_import_find(p4_import *library, const char *function);
const char *p4_import_error(const p4_import *library);

/* Defines `name` with the type and parameters of its header; without the library it returns `failure`. */
#define P4_IMPORT(library, failure, type, name, parameters, arguments)                  \
    type name parameters                                                                \
    {                                                                                   \
        static void *p4_address;                                                        \
        void *p4_found = __atomic_load_n(&p4_address, __ATOMIC_ACQUIRE);                \
        if (!p4_found) {                                                                \
            p4_found = p4_import_find(&(library), #name);                               \
            __atomic_store_n(&p4_address, p4_found, __ATOMIC_RELEASE);                  \
        }                                                                               \
        return p4_found ? ((type(*) parameters)(uintptr_t)p4_found)arguments : failure; \
    }

#endif
