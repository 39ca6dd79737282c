#include "src/leaf/import.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The error that is kept is the first: the system's search says more than that of the build's folder. */
static void load(p4_import *library)
{
    char path[4096];
    library->tried = true;
    library->handle = dlopen(library->file, RTLD_NOW | RTLD_LOCAL);
    if (library->handle == NULL) {
        const char *why = dlerror();
        snprintf(library->error, sizeof library->error, "%s cannot be loaded: %s", library->file,
                 why != NULL ? why : "no reason is given");
    }
    if (library->handle == NULL && library->folder != NULL) {
        snprintf(path, sizeof path, "%s/%s", library->folder, library->file);
        library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    if (library->handle != NULL) {
        library->error[0] = '\0';
    }
}

void *p4_import_find(p4_import *library, const char *function)
{
    void *address = NULL;
    pthread_mutex_lock(&lock);
    if (!library->tried) {
        load(library);
    }
    if (library->handle != NULL) {
        address = dlsym(library->handle, function);
        if (address == NULL) {
            snprintf(library->error, sizeof library->error, "%s lacks %s", library->file, function);
        }
    }
    pthread_mutex_unlock(&lock);
    return address;
}

bool p4_import_functions(p4_import *library, const p4_import_function *functions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        void *address = p4_import_find(library, functions[i].name);
        if (address == NULL) {
            return false;
        }
        memcpy(functions[i].to, &address, sizeof address); /* POSIX: it holds a function's address */
    }
    return true;
}

void p4_import_unload(p4_import *library)
{
    pthread_mutex_lock(&lock);
    if (library->handle != NULL) {
        dlclose(library->handle);
    }
    library->handle = NULL;
    library->tried = false;
    library->error[0] = '\0';
    pthread_mutex_unlock(&lock);
}

const char *p4_import_error(const p4_import *library)
{
    return library->error;
}
