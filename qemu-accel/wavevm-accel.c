/*
 * -accel
 * wavevm[,mode=user|auto][,backend=tcg|kvm|auto][,vm-id=N][,split=N[,remote=NODE:...]][,report=on]
 *
 * The type behind the option is a front. Its options are checked and the
 * master is attached when QEMU initialises it; then it creates the engine
 * (wavevm-engine.c) that backend= selects, hands it every option that is the
 * engine's own (thread=, tb-size=, kernel-irqchip=, ...) and makes it the
 * machine's accelerator in its place. Any failure ends QEMU with one line:
 * falling back to another accelerator would boot a guest with other memory.
 */
#include "qemu/osdep.h"

#include "accel.h"
#include "qapi/visitor.h"
#include "qemu/accel.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#if QEMU_VERSION_MAJOR >= 10
#include "qobject/qdict.h"
#else
#include "qapi/qmp/qdict.h"
#endif

#define TYPE_WAVEVM_ACCEL ACCEL_CLASS_NAME("wavevm")
OBJECT_DECLARE_SIMPLE_TYPE(WaveVMAccel, WAVEVM_ACCEL)

#define SPLIT_ALL UINT32_MAX

struct wvm_qemu_placement wvm_qemu_placement = {.split = SPLIT_ALL};

struct WaveVMAccel {
	AccelState parent_obj;

	char *mode;
	char *backend;
	char *remote; /* nodes; NULL when not given */
	uint16_t vm_id;
	uint32_t split;        /* vCPUs that run here; SPLIT_ALL when not given */
	QDict *engine_options; /* option name -> text, as given */
};

static bool kvm_usable(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* A nested host may offer /dev/kvm yet emulate most instructions: its CPU then shows neither flag.
 */
static bool cpu_virtualizes(void)
{
	g_autofree char *text = NULL;

	if (!g_file_get_contents("/proc/cpuinfo", &text, NULL, NULL))
		return false;
	return g_regex_match_simple("^flags\\s*:.*\\s(vmx|svm)\\b", text, G_REGEX_MULTILINE, 0);
}

static const char *choose_engine(WaveVMAccel *s, Error **errp)
{
	if (!strcmp(s->backend, "kvm")) {
		if (!kvm_usable()) {
			error_setg(errp,
				   "wavevm: backend=kvm cannot open /dev/kvm (%s); use backend=tcg",
				   strerror(errno));
			return NULL;
		}
		return TYPE_WAVEVM_KVM;
	}
	if (!strcmp(s->backend, "auto") && !s->remote && object_class_by_name(TYPE_WAVEVM_KVM) &&
	    kvm_usable() && cpu_virtualizes())
		return TYPE_WAVEVM_KVM;
	return TYPE_WAVEVM_TCG;
}

static AccelState *create_engine(WaveVMAccel *s, Error **errp)
{
	const char *type = choose_engine(s, errp);
	const QDictEntry *e;
	Object *engine;

	if (!type)
		return NULL;
	if (!object_class_by_name(type)) {
		error_setg(errp, "wavevm: this QEMU was built without %s",
			   !strcmp(type, TYPE_WAVEVM_KVM) ? "KVM" : "TCG");
		return NULL;
	}
	engine = object_new(type);
	object_apply_compat_props(engine);
	for (e = qdict_first(s->engine_options); e; e = qdict_next(s->engine_options, e)) {
		const char *name = qdict_entry_key(e);

		if (!object_property_parse(engine, name, qdict_get_str(s->engine_options, name),
					   errp)) {
			object_unref(engine);
			return NULL;
		}
	}
	return ACCEL(engine);
}

/* remote=NODE:NODE:... */
static bool parse_nodes(const char *text, Error **errp)
{
	g_auto(GStrv) parts = g_strsplit(text, ":", -1);
	uint32_t count = g_strv_length(parts), i;

	wvm_qemu_placement.nodes = g_new0(uint32_t, count);
	wvm_qemu_placement.count = count;
	for (i = 0; i < count; i++) {
		unsigned node;

		if (qemu_strtoui(parts[i], NULL, 10, &node)) {
			error_setg(errp, "wavevm: remote=%s: '%s' is not the id of a node", text,
				   parts[i]);
			return false;
		}
		wvm_qemu_placement.nodes[i] = node;
	}
	return true;
}

static bool leaves_some(const WaveVMAccel *s, const MachineState *ms)
{
	return s->split < ms->smp.max_cpus;
}

static bool check_placement(WaveVMAccel *s, MachineState *ms, Error **errp)
{
	bool some = leaves_some(s, ms);

	wvm_qemu_placement.split = s->split;
	if (!some && s->remote) {
		error_setg(errp, "wavevm: remote=%s needs split=N, N less than the %u vCPUs",
			   s->remote, ms->smp.max_cpus);
		return false;
	}
	if (some && strcmp(s->backend, "tcg")) {
		error_setg(errp, "wavevm: split= needs backend=tcg in this version");
		return false;
	}
	if (!s->split) {
		error_setg(errp, "wavevm: split=0 leaves no vCPU here; the first one runs where "
				 "the devices are");
		return false;
	}
	return !s->remote || parse_nodes(s->remote, errp);
}

static bool check_options(WaveVMAccel *s, MachineState *ms, Error **errp)
{
	if (!strcmp(s->mode, "kernel")) {
		error_setg(errp,
			   "wavevm: mode=kernel needs the kernel module, which is not in this "
			   "version; use mode=user");
		return false;
	}
	return check_placement(s, ms, errp);
}

static char *cpu_text;
static void (*plain_parse_features)(const char *type, char *features, Error **errp);

/* A model is "NAME-x86_64-cpu" among types. */
static char *model_name(const char *type)
{
	static const char suffix[] = "-x86_64-cpu";
	size_t len = strlen(type) - (g_str_has_suffix(type, suffix) ? strlen(suffix) : 0);

	return g_strndup(type, len);
}

static void parse_features(const char *type, char *features, Error **errp)
{
	g_autofree char *model = model_name(type);

	g_free(cpu_text);
	cpu_text = g_strdup_printf("%s%s%s", model, features ? "," : "", features ?: "");
	plain_parse_features(type, features, errp);
}

const char *wvm_qemu_cpu_text(MachineState *ms)
{
	if (!cpu_text)
		cpu_text = model_name(ms->cpu_type);
	return cpu_text;
}

static void listen_to_features(ObjectClass *oc, void *opaque)
{
	CPUClass *cc = CPU_CLASS(oc);

	plain_parse_features = cc->parse_features;
	cc->parse_features = parse_features;
}

/* QEMU takes -cpu apart into properties of all vCPUs; slaves need it as it was given. */
static void remember_cpu_text(void)
{
	object_class_foreach(listen_to_features, TYPE_CPU, false, NULL);
}

/* Where remote= does not say it, the topology does, which the master knows. */
static bool place_vcpus(WaveVMAccel *s, MachineState *ms, Error **errp)
{
	return s->remote || !leaves_some(s, ms) || wvm_qemu_deal(ms->smp.max_cpus - s->split, errp);
}

static int front_init_machine(MachineState *ms)
{
	WaveVMAccel *s = WAVEVM_ACCEL(ms->accelerator);
	AccelState *engine = NULL;
	Error *err = NULL;

	if (check_options(s, ms, &err) && wvm_qemu_guard(&err))
		engine = create_engine(s, &err);
	if (!engine || !wvm_qemu_attach(s->vm_id, &err) || !place_vcpus(s, ms, &err)) {
		error_report_err(err);
		exit(EXIT_FAILURE);
	}
	wvm_qemu_default_ram(ms);
	remember_cpu_text();
	/* An engine that fails has said why. */
	if (accel_init_machine(engine, ms) < 0)
		exit(EXIT_FAILURE);
	return 0;
}

static void set_choice(char **field, const char *name, const char *value,
		       const char *const *choices, Error **errp)
{
	if (!g_strv_contains(choices, value)) {
		g_autofree char *list = g_strjoinv(", ", (char **)choices);

		error_setg(errp, "wavevm: %s=%s is unknown; it is one of %s", name, value, list);
		return;
	}
	g_free(*field);
	*field = g_strdup(value);
}

static char *get_mode(Object *obj, Error **errp)
{
	return g_strdup(WAVEVM_ACCEL(obj)->mode);
}

static void set_mode(Object *obj, const char *value, Error **errp)
{
	static const char *const choices[] = {"user", "kernel", "auto", NULL};

	set_choice(&WAVEVM_ACCEL(obj)->mode, "mode", value, choices, errp);
}

static char *get_backend(Object *obj, Error **errp)
{
	return g_strdup(WAVEVM_ACCEL(obj)->backend);
}

static void set_backend(Object *obj, const char *value, Error **errp)
{
	static const char *const choices[] = {"tcg", "kvm", "auto", NULL};

	set_choice(&WAVEVM_ACCEL(obj)->backend, "backend", value, choices, errp);
}

static void get_vm_id(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
	visit_type_uint16(v, name, &WAVEVM_ACCEL(obj)->vm_id, errp);
}

static void set_vm_id(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
	visit_type_uint16(v, name, &WAVEVM_ACCEL(obj)->vm_id, errp);
}

static void get_split(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
	visit_type_uint32(v, name, &WAVEVM_ACCEL(obj)->split, errp);
}

static void set_split(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
	visit_type_uint32(v, name, &WAVEVM_ACCEL(obj)->split, errp);
}

static char *get_remote(Object *obj, Error **errp)
{
	return g_strdup(WAVEVM_ACCEL(obj)->remote);
}

static void set_remote(Object *obj, const char *value, Error **errp)
{
	g_free(WAVEVM_ACCEL(obj)->remote);
	WAVEVM_ACCEL(obj)->remote = g_strdup(value);
}

static bool get_report(Object *obj, Error **errp)
{
	return wvm_qemu_placement.report;
}

static void set_report(Object *obj, bool value, Error **errp)
{
	wvm_qemu_placement.report = value;
}

static void set_engine_option(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
	g_autofree char *value = NULL;

	if (visit_type_str(v, name, &value, errp))
		qdict_put_str(WAVEVM_ACCEL(obj)->engine_options, name, value);
}

/* Every option of an engine is one of ours; it is kept until the engine is known. */
static void adopt_engine_options(Object *obj, const char *type)
{
	ObjectClass *oc = object_class_by_name(type);
	ObjectPropertyIterator iter;
	ObjectProperty *p;

	if (!oc)
		return;
	object_class_property_iter_init(&iter, oc);
	while ((p = object_property_iter_next(&iter))) {
		if (!object_property_find(obj, p->name))
			object_property_add(obj, p->name, "string", NULL, set_engine_option, NULL,
					    NULL);
	}
}

static void front_instance_init(Object *obj)
{
	WaveVMAccel *s = WAVEVM_ACCEL(obj);

	s->mode = g_strdup("user");
	s->backend = g_strdup("auto");
	s->split = SPLIT_ALL;
	s->engine_options = qdict_new();
	adopt_engine_options(obj, TYPE_WAVEVM_TCG);
	adopt_engine_options(obj, TYPE_WAVEVM_KVM);
}

static void front_instance_finalize(Object *obj)
{
	WaveVMAccel *s = WAVEVM_ACCEL(obj);

	g_free(s->mode);
	g_free(s->backend);
	g_free(s->remote);
	qobject_unref(s->engine_options);
}

static void front_class_init(ObjectClass *oc, void *data)
{
	static bool allowed;
	AccelClass *ac = ACCEL_CLASS(oc);

	ac->name = "wavevm";
	ac->init_machine = front_init_machine;
	ac->allowed = &allowed;

	object_class_property_add_str(oc, "mode", get_mode, set_mode);
	object_class_property_set_description(oc, "mode",
					      "Where page faults are served: user, or auto");
	object_class_property_add_str(oc, "backend", get_backend, set_backend);
	object_class_property_set_description(oc, "backend", "What runs vCPUs: tcg, kvm or auto");
	object_class_property_add(oc, "vm-id", "uint16", get_vm_id, set_vm_id, NULL, NULL);
	object_class_property_set_description(oc, "vm-id", "The VM whose memory is guest RAM");
	object_class_property_add(oc, "split", "uint32", get_split, set_split, NULL, NULL);
	object_class_property_set_description(oc, "split", "Number of vCPUs that run on this node");
	object_class_property_add_str(oc, "remote", get_remote, set_remote);
	object_class_property_set_description(oc, "remote",
					      "Nodes of the other vCPUs, NODE:NODE:...; by "
					      "default they are dealt by the topology");
	object_class_property_add_bool(oc, "report", get_report, set_report);
	object_class_property_set_description(oc, "report",
					      "Print at the end why remote vCPUs' runs ended");
}

static const TypeInfo front_types[] = {
	{
		.name = TYPE_WAVEVM_ACCEL,
		.parent = TYPE_ACCEL,
		.instance_size = sizeof(WaveVMAccel),
		.instance_init = front_instance_init,
		.instance_finalize = front_instance_finalize,
		.class_init = front_class_init,
	},
};

DEFINE_TYPES(front_types)
