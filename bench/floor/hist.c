/* The floor counts with the statistics of wvmbench. */
#include "bench/wvmbench/hist.c"
