/* `wvmbench vcpu`: runs of a processor on other nodes. */
#ifndef WVMBENCH_VCPU_H
#define WVMBENCH_VCPU_H

/* Parses the command line, whose argv[0] is the command, and runs it. Returns the exit status. */
int vcpu_command(int argc, char **argv);

#endif
