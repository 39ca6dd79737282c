/* anchor.h - relative paths as absolute ones, for what is read in another folder. Local. */
#ifndef P4_ANCHOR_H
#define P4_ANCHOR_H

#include "src/leaf/base.h"

/* The path as it is meant in the folder `from`, which is absolute and has no links in its name: ".." at the
 * start of the path is resolved, links in the path are not. An empty path stays empty. false: it does not
 * fit. */
bool p4_path_anchor(char *to, size_t room, const char *path, const char *from);
/* The same for the working directory, heap; as it is given where that is not known. NULL: memory is out. */
char *p4_path_absolute(const char *path);

#endif
