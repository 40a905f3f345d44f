#include "shared/core/check/broken.h"

enum broken_fault broken_fault = BROKEN_NOT;
uint32_t broken_every = 1;
uint64_t broken_ignored;

static const char *const names[] = {
	[BROKEN_NOT] = "sound",
	[BROKEN_ONE_ACK] = "forgets the other acknowledgements",
	[BROKEN_OWNER_FORGOTTEN] = "forgets an owner that is slow",
	[BROKEN_STORED_VERSION] = "stores bytes under the old version",
	[BROKEN_LATE_GRANT] = "takes a late grant",
	[BROKEN_REFUSED_GRANT] =
		"takes a grant that it answered for (ignores the invalidated version)",
	[BROKEN_FORGOTTEN_EARLY] = "forgets data before its acknowledgement",
	[BROKEN_NOT_HELD_WHILE_HELD] = "refuses what it holds",
	[BROKEN_DOWNGRADE] = "downgrades without protecting",
	[BROKEN_SECOND_PROGRAM] = "lets a second program in unprotected",
	[BROKEN_KEPT] = "keeps an invalidated copy",
	[BROKEN_UNIT_TWICE] = "grants a whole unit twice",
	[BROKEN_UNIT_KEPT] = "keeps what is split off a whole unit",
	[BROKEN_MERGE_ASKED] = "merges what it has asked for",
	[BROKEN_MERGE_BLIND] = "merges whatever it is told",
	[BROKEN_MERGE_EVICT] = "gives up what is being merged",
	[BROKEN_HANDOVER_BLIND] = "serves before the page has come",
	[BROKEN_HANDOVER_EARLY] = "takes the first page that has come for all",
	[BROKEN_HANDOVER_SERVES] = "goes on serving as a former home",
	[BROKEN_HANDOVER_COUNTER] = "hands a unit over without its version counter",
	[BROKEN_HANDOVER_LEFT] = "does not repeat a write-back to the new home",
	[BROKEN_HANDOVER_COUNTED] =
		"counts what is left by what an input that was cut short had done",
	[BROKEN_HANDOVER_FORGETS] = "forgets what it took from a node that is still a home",
	[BROKEN_BACKUP_EARLY] = "acknowledges before the second home has it",
	[BROKEN_BACKUP_LOWER] = "takes an older copy as the second home",
	[BROKEN_BACKUP_SKIPS] = "calls a slice complete without copying it",
	[BROKEN_BACKUP_ENTRY] = "takes the copies of a second home for entries",
	[BROKEN_REBUILD_UNTOLD] = "serves in a dead home's place before all have told",
	[BROKEN_REBUILD_ZEROS] = "takes for zeros what it may have no copy of",
	[BROKEN_REBUILD_VERSION] = "gives out versions of a dead home once more",
	[BROKEN_RENEWED_SECOND] = "calls complete what was complete before a member lost its files",
	[BROKEN_RENEWED_TOLD] = "believes a member that lost its files in the middle of telling",
	[BROKEN_INVALIDATED_IGNORED] = "takes grants without comparing versions",
};

const char *broken_name(enum broken_fault fault)
{
	return names[fault];
}

bool broken_now(enum broken_fault fault)
{
	static uint32_t count;

	return broken_fault == fault && ++count % broken_every == 0;
}
