/* import.h - shared libraries that a machine may lack, loaded when one of their functions is first needed.
 *
 * One program serves machines with and without NVIDIA's libraries, so it must start without them. There are
 * two ways to call such a library. A file NAME_import* defines the library's functions under their own names
 * (P4_IMPORT) and forwards each call: code includes the library's header, calls as usual, and gets the
 * library's own kind of error where it is missing; a function that the file lacks is a linker error. Or a
 * caller looks up a list of functions (p4_import_functions).
 */
#ifndef P4_IMPORT_H
#define P4_IMPORT_H

#include "src/leaf/base.h"

typedef struct p4_import {
    const char *file;   /* "libnccl.so.2": searched where the system searches for libraries, */
    const char *folder; /* then here, where the build found it; NULL: nowhere else */
    void *handle;       /* NULL: not loaded */
    bool tried;
    char error[512]; /* why it cannot be used; "" while it can */
} p4_import;

/* A function to look up: `to` is the address of a function pointer. */
typedef struct p4_import_function {
    const char *name;
    void *to;
} p4_import_function;

/* Address of a function of the library, which is loaded at the first call and then stays loaded; NULL where
 * the library or the function is missing (p4_import_error says why). Any thread may call. Local. */
void *p4_import_find(p4_import *library, const char *function);
/* Looks up all of `functions`. False when one is missing: p4_import_error says why. Local. */
bool p4_import_functions(p4_import *library, const p4_import_function *functions, size_t count);
/* The next look-up loads the library anew. All addresses found before are invalid. Local. */
void p4_import_unload(p4_import *library);
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
