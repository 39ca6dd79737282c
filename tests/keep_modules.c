/* keep_modules.c - linked into the programs of a sanitized build: libraries that were loaded stay loaded, so
 * that the leak report names them and lsan.supp can tell Open MPI's plugins from our own code. */
__attribute__((visibility("default"))) int dlclose(void *library);

int dlclose(void *library)
{
    (void)library;
    return 0;
}
