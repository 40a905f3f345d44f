#ifndef WVMBENCH_GATEWAY_H
#define WVMBENCH_GATEWAY_H

/* Parses the command line, whose argv[0] is the command, and runs it. Returns the exit status. */
int gateway_command(int argc, char **argv);

#endif
