/*
 * The machine of epochs with one rule broken (epoch_rules.h), chosen as the program runs. Whoever
 * claims to check it has to catch every one of them.
 */
#ifndef WVM_CHECK_EPOCH_BROKEN_H
#define WVM_CHECK_EPOCH_BROKEN_H

enum epoch_fault {
	EPOCH_SOUND,
	EPOCH_SAVES_LATE,    /* it is saved after the messages have left */
	EPOCH_SAVES_NOTHING, /* nor then */
	EPOCH_OWN_WISH,      /* a proposer goes on with its wish, whatever was accepted */
	EPOCH_LAST_TOLD, /* it takes the record that it was told of last, not the highest ballot's
			  */
	EPOCH_MINORITY,  /* one vote of three is enough */
	EPOCH_BELOW_PROMISE, /* a voter accepts any ballot */
	EPOCH_PROMISE_LOWER, /* it promises any ballot */
	EPOCH_FAULTS,
};

extern enum epoch_fault epoch_fault;
const char *epoch_fault_name(enum epoch_fault fault);

#endif
