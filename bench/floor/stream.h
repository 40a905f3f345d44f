#ifndef WVM_FLOOR_STREAM_H
#define WVM_FLOOR_STREAM_H

#include "floor.h"

/*
 * Moves o->stream_bytes from a home process, on core_h, to this one, on core_m, and prints how long
 * it took: from the request to the last byte. o->raw: headers are read, but nothing is checked or
 * copied. o->place: into a file that has no pages (place.h).
 */
void floor_stream(const struct floor_options *o);

#endif
