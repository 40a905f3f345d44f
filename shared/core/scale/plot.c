/* Results as a picture: the share of those that know, over time. */
#include <errno.h>

#include "shared/core/scale/scale.h"

#define WIDTH  760.0
#define HEIGHT 250.0
#define LEFT   60.0
#define TOP    40.0
#define GAP    90.0 /* between the two panels */
#define LINE   18.0 /* of the legend */

/* Okabe and Ito's colours, which all eyes tell apart. */
static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
				      "#e69f00", "#56b4e9", "#000000"};

static const char *colour(uint32_t i)
{
	return colours[i % (sizeof(colours) / sizeof(colours[0]))];
}

/* A step of the axis: 1, 2 or 5 seconds times a power of ten, about eight of them. */
static double step_of(double max)
{
	double step = 0.1;

	while (max / step > 8) {
		step *= 2;
		if (max / step <= 8)
			break;
		step *= 2.5;
		if (max / step <= 8)
			break;
		step *= 2;
	}
	return step;
}

static void axes(FILE *f, double top, double max_s, const char *title)
{
	fprintf(f, "<text x='%.0f' y='%.0f' font-weight='bold'>%s</text>\n", LEFT, top - 12, title);
	for (int percent = 0; percent <= 100; percent += 25) {
		double y = top + HEIGHT * (1 - percent / 100.0);

		fprintf(f, "<path d='M%.0f %.1fh%.0f' stroke='#ddd'/>", LEFT, y, WIDTH);
		fprintf(f, "<text x='%.0f' y='%.1f' text-anchor='end'>%d %%</text>\n", LEFT - 6,
			y + 4, percent);
	}
	for (double s = 0; s <= max_s * 1.001; s += step_of(max_s)) {
		double x = LEFT + WIDTH * s / max_s;

		fprintf(f, "<path d='M%.1f %.0fv%.0f' stroke='#ddd'/>", x, top, HEIGHT);
		fprintf(f, "<text x='%.1f' y='%.0f' text-anchor='middle'>%g s</text>\n", x,
			top + HEIGHT + 16, s);
	}
}

static void curve(FILE *f, double top, double max_s, const struct scale_spread *s, uint32_t i)
{
	double share = s->of ? (double)s->reached / s->of : 0;

	if (!s->reached)
		return;
	fprintf(f, "<polyline fill='none' stroke-width='2' stroke='%s' points='", colour(i));
	for (uint32_t p = 0; p < SCALE_CURVE; p++)
		fprintf(f, "%.1f,%.1f ", LEFT + WIDTH * s->curve_ms[p] / 1e3 / max_s,
			top + HEIGHT * (1 - share * p / (SCALE_CURVE - 1)));
	fprintf(f, "'/>\n");
}

static double longest(double max_s, const struct scale_spread *s)
{
	return s->max_ms / 1e3 > max_s ? s->max_ms / 1e3 : max_s;
}

int scale_plot(const char *path, const struct scale_result *r, uint32_t count)
{
	double epoch_s = 1, death_s = 1, second = TOP + HEIGHT + GAP;
	FILE *f = fopen(path, "w");
	int error;

	if (!f)
		return -errno;
	for (uint32_t i = 0; i < count; i++) {
		epoch_s = longest(epoch_s, &r[i].epoch);
		death_s = longest(death_s, &r[i].all);
	}
	fprintf(f,
		"<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' "
		"font-family='sans-serif' font-size='12'>\n<rect width='100%%' height='100%%' "
		"fill='white'/>\n",
		LEFT + WIDTH + 30, second + HEIGHT + 40 + LINE * count);
	axes(f, TOP, epoch_s, "Nodes that know a new epoch");
	axes(f, second, death_s, "Members of its group that hold a dead node for dead");
	for (uint32_t i = 0; i < count; i++) {
		double y = second + HEIGHT + 40 + LINE * i;

		curve(f, TOP, epoch_s, &r[i].epoch, i);
		curve(f, second, death_s, &r[i].all, i);
		fprintf(f, "<path d='M%.0f %.0fh24' stroke='%s' stroke-width='3'/>", LEFT, y - 4,
			colour(i));
		fprintf(f, "<text x='%.0f' y='%.0f'>%s</text>\n", LEFT + 32, y, r[i].plan.name);
	}
	fprintf(f, "</svg>\n");
	error = ferror(f) ? -EIO : 0;
	return fclose(f) && !error ? -errno : error;
}
