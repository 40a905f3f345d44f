#include "roles/ctl/top.h"

#include <curses.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUND_MIN_NS UINT64_C(1000000000) /* a round that is not over by then has failed */
#define CTRL_L       ('L' & 0x1f)         /* whatever else wrote on the terminal goes away */
#define ROUND_MAX_NS UINT64_C(5000000000)

struct top {
	const struct wvm_top_options *options;
	struct wvm_top_target targets[WVM_TOP_TARGETS_MAX];
	struct wvm_top_view view;
	bool screen, keys, quit;
	int scroll;
	int failed;     /* errno of the output */
	unsigned shown; /* samples */
	uint64_t interval_ns, round_ns;
	uint64_t tick_ns, next_ns; /* when the present rounds began, and the next ones do */
	bool due;                  /* the present ones have not been shown yet */
	bool baseline;             /* there is nothing to compare with so far */
};

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* ---- output ------------------------------------------------------------------------------- */

/* Lines below the scrolled ones; what does not fit is not shown. */
static void draw(struct top *top)
{
	char *text = NULL, *rest, *line;
	int row = 0, lines = 0, height = getmaxy(stdscr), width = getmaxx(stdscr);
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return;
	wvm_top_text(&top->view, clock_ns(), out);
	if (fclose(out)) {
		free(text);
		return;
	}
	for (const char *at = text; (at = strchr(at, '\n')); at++)
		lines++;
	if (top->scroll > lines - height + 1)
		top->scroll = lines - height + 1;
	if (top->scroll < 0)
		top->scroll = 0;
	erase();
	rest = text;
	for (int i = 0; (line = strsep(&rest, "\n")) && row < height - 1; i++) {
		bool heading = !strncmp(line, "MASTER", 6) || !strncmp(line, "GATEWAY", 7);

		/* The first line stays. */
		if (i && i <= top->scroll)
			continue;
		attrset(heading ? A_REVERSE : i ? A_NORMAL : A_BOLD);
		mvaddnstr(row++, 0, line, width);
	}
	attrset(A_DIM);
	mvaddnstr(height - 1, 0, "q quit  p pause  s sort  arrows scroll", width);
	attrset(A_NORMAL);
	free(text);
	refresh();
}

static void show(struct top *top)
{
	json_t *o;

	top->due = false;
	if (top->screen) {
		draw(top);
		top->shown++;
		return;
	}
	/* Without a screen nobody sees the first figures become rates. */
	if (top->baseline) {
		top->baseline = false;
		return;
	}
	if (top->options->json) {
		o = wvm_top_json(&top->view, clock_ns());
		json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
		putchar('\n');
		json_decref(o);
	} else {
		wvm_top_text(&top->view, clock_ns(), stdout);
		putchar('\n');
	}
	top->shown++;
	if (fflush(stdout)) {
		top->failed = errno;
		top->quit = true;
	}
}

/* ---- keys --------------------------------------------------------------------------------- */

static void on_key(struct top *top, int key)
{
	switch (key) {
	case 'q':
	case 'Q': top->quit = true; return;
	case 'p':
	case 'P': top->view.paused = !top->view.paused; break;
	case 's':
	case 'S': top->view.sort = (top->view.sort + 1) % WVM_TOP_SORTS; break;
	case KEY_DOWN: top->scroll++; break;
	case KEY_UP: top->scroll--; break;
	case KEY_NPAGE: top->scroll += getmaxy(stdscr) / 2; break;
	case KEY_PPAGE: top->scroll -= getmaxy(stdscr) / 2; break;
	case KEY_RESIZE: break;
	case CTRL_L: clearok(curscr, TRUE); break;
	default: return;
	}
	draw(top);
}

static void read_keys(struct top *top, const struct pollfd *p)
{
	int key;

	while (!top->quit && (key = getch()) != ERR)
		on_key(top, key);
	/* The terminal is gone. */
	if (p->fd >= 0 && p->revents & (POLLHUP | POLLERR | POLLNVAL))
		top->quit = true;
}

/* ---- the loop ----------------------------------------------------------------------------- */

static bool all_over(const struct top *top)
{
	for (unsigned i = 0; i < top->view.count; i++)
		if (top->targets[i].fd >= 0)
			return false;
	return true;
}

/* When the present sample is shown at the latest: with short intervals before slow rounds end. */
static uint64_t show_by(const struct top *top)
{
	return top->tick_ns +
	       (top->interval_ns > ROUND_MIN_NS || !top->screen ? top->round_ns : top->interval_ns);
}

static void tick(struct top *top, uint64_t now_ns)
{
	if (top->view.paused || now_ns < top->next_ns || top->due)
		return;
	for (unsigned i = 0; i < top->view.count; i++)
		wvm_top_begin(&top->targets[i], now_ns, top->round_ns);
	top->tick_ns = now_ns;
	top->next_ns = now_ns + top->interval_ns;
	top->due = true;
}

static int wait_ms(const struct top *top, uint64_t now_ns)
{
	uint64_t at = UINT64_MAX;

	if (top->due)
		at = show_by(top);
	else if (!top->view.paused)
		at = top->next_ns;
	for (unsigned i = 0; i < top->view.count; i++)
		if (wvm_top_due(&top->targets[i]) < at)
			at = wvm_top_due(&top->targets[i]);
	if (at == UINT64_MAX)
		return -1;
	return at <= now_ns ? 0 : (int)((at - now_ns + 999999) / 1000000);
}

static void turn(struct top *top)
{
	struct pollfd p[1 + WVM_TOP_TARGETS_MAX];
	uint64_t now_ns = clock_ns();

	tick(top, now_ns);
	p[0] = (struct pollfd){.fd = top->keys ? STDIN_FILENO : -1, .events = POLLIN};
	for (unsigned i = 0; i < top->view.count; i++)
		p[1 + i] = (struct pollfd){.fd = top->targets[i].fd, .events = POLLIN};
	if (poll(p, 1 + top->view.count, wait_ms(top, now_ns)) < 0)
		p[0].revents = 0; /* a signal: the window may have another size */
	if (top->screen)
		read_keys(top, &p[0]);
	now_ns = clock_ns();
	for (unsigned i = 0; i < top->view.count; i++)
		wvm_top_go_on(&top->targets[i], now_ns);
	if (top->due && (all_over(top) || now_ns >= show_by(top)))
		show(top);
	if (top->options->samples && top->shown == top->options->samples)
		top->quit = true;
}

/* Without a terminal that curses knows there is text. */
static SCREEN *open_screen(struct top *top)
{
	SCREEN *screen;

	if (top->options->json || !isatty(STDOUT_FILENO))
		return NULL;
	screen = newterm(NULL, stdout, stdin);
	if (!screen)
		return NULL;
	if (!tigetstr("cup")) { /* dumb: it cannot put the cursor anywhere */
		endwin();
		delscreen(screen);
		return NULL;
	}
	top->screen = true;
	top->keys = isatty(STDIN_FILENO);
	cbreak();
	noecho();
	curs_set(0);
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	return screen;
}

static int end(struct top *top)
{
	bool heard = false;

	for (unsigned i = 0; i < top->view.count; i++) {
		heard |= top->targets[i].now != NULL;
		wvm_top_close(&top->targets[i]);
	}
	if (top->failed) {
		fprintf(stderr, "wvm_ctl: cannot write the output: %s\n", strerror(top->failed));
		return EXIT_FAILURE;
	}
	if (!heard) {
		fprintf(stderr,
			"wvm_ctl: no master or gateway answers on the %u control port%s asked; "
			"is one running, with that CTRL_PORT?\n",
			top->view.count, top->view.count > 1 ? "s" : "");
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

int wvm_top(const struct wvm_top_options *o)
{
	static struct top top;
	uint64_t now_ns = clock_ns();
	SCREEN *screen;

	top = (struct top){.options = o, .baseline = true, .next_ns = now_ns};
	top.view = (struct wvm_top_view){.targets = top.targets, .interval_s = o->interval_s};
	top.interval_ns = (uint64_t)(o->interval_s * 1e9);
	top.round_ns = top.interval_ns < ROUND_MIN_NS   ? ROUND_MIN_NS
		       : top.interval_ns > ROUND_MAX_NS ? ROUND_MAX_NS
							: top.interval_ns;
	for (; top.view.count < o->count; top.view.count++)
		if (wvm_top_open(&top.targets[top.view.count], o->at[top.view.count].ip,
				 o->at[top.view.count].port, now_ns)) {
			fprintf(stderr, "wvm_ctl: no memory\n");
			return EXIT_FAILURE;
		}
	screen = open_screen(&top);
	while (!top.quit)
		turn(&top);
	if (screen) {
		endwin();
		delscreen(screen);
	}
	return end(&top);
}
