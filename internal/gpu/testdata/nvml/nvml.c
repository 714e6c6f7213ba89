// A fake of NVIDIA's management library, for tests without a GPU:
//
//	gcc -shared -fPIC -o libnvidia-ml.so.1 nvml.c
//
// It answers from the description of a machine in the file $FAKE_GPUS, with
// the real signatures, struct layouts and return codes. What a line of that
// file means stands in fake_test.go. -DWITHOUT_<function> leaves a function
// out, as an old driver does. One caller at a time, like the exporter's worker.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_GPUS = 256, MAX_LINES = 4096 };

typedef enum {
	OK = 0,
	UNINITIALIZED = 1,
	INVALID_ARGUMENT = 2,
	NOT_SUPPORTED = 3,
	INSUFFICIENT_SIZE = 7,
	DRIVER_NOT_LOADED = 9,
	TIMEOUT = 10,
	GPU_IS_LOST = 15,
	MEMORY = 20,
	ARGUMENT_VERSION_MISMATCH = 25,
	UNKNOWN = 999,
} Return;

typedef char *Device; // points into handles: its offset there is the GPU's place
static char handles[MAX_GPUS];

typedef struct {
	char busIdLegacy[16];
	unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
	char busId[32];
} PciInfo;

typedef struct {
	unsigned int gpu, memory;
} Utilization;

typedef struct {
	unsigned long long total, free, used;
} Memory;

typedef struct {
	unsigned int version;
	unsigned long long total, reserved, free, used;
} Memory_v2;

typedef struct {
	unsigned int fieldId, scopeId;
	long long timestamp, latencyUsec;
	unsigned int valueType;
	Return result;
	union {
		double d;
		unsigned int ui;
		unsigned long long ull;
	} value;
} FieldValue;

typedef struct {
	Device device;
	unsigned long long eventType, eventData;
	unsigned int gpuInstanceId, computeInstanceId;
} EventData;

typedef struct {
	unsigned int next; // the first xid line that this set has not seen
	char registered[MAX_GPUS];
} *EventSet;

// API(f) begins a function of the library; -DWITHOUT_f hides it from whoever
// loads the library. (WITHOUT_f is then 1, NOTHING_1 a comma, and the attribute
// thereby the second argument.)
#define API(function) VISIBLE(function) Return function
#define VISIBLE(function) VISIBLE_(WITHOUT_##function)
#define VISIBLE_(without) VISIBLE__(without)
#define VISIBLE__(without) SECOND(NOTHING_##without __attribute__((visibility("hidden"))), , )
#define NOTHING_1 ,
#define SECOND(...) SECOND_(__VA_ARGS__)
#define SECOND_(first, second, ...) second

// The machine, as last read. All text points into one buffer.
static int users; // nvmlInit_v2 less nvmlShutdown
static struct {
	char *keys, *name;
} gpus[MAX_GPUS];
static struct {
	int place;
	unsigned long long code;
} xids[MAX_LINES];
static unsigned int gpu_count, xid_count, fault_count;
static char lost[MAX_GPUS];
static char *faults[MAX_LINES], *driver, *noise;

// load reads the description anew; a file that cannot be read changes nothing.
static int load(void)
{
	static char text[1 << 20];
	const char *path = getenv("FAKE_GPUS");
	FILE *file = path ? fopen(path, "r") : NULL;
	if (!file)
		return 0;
	size_t size = fread(text, 1, sizeof text - 1, file);
	int failed = ferror(file);
	fclose(file);
	if (failed)
		return 0;
	text[size] = 0;

	gpu_count = xid_count = fault_count = 0;
	driver = noise = NULL;
	memset(lost, 0, sizeof lost);
	char *rest = text, *line;
	while ((line = strsep(&rest, "\n"))) {
		int place;
		unsigned long long code;
		if (!strncmp(line, "gpu ", 4) && gpu_count < MAX_GPUS) {
			char *name = strstr(line, " name=");
			if (name)
				*name = 0;
			gpus[gpu_count].keys = line;
			gpus[gpu_count++].name = name ? name + strlen(" name=") : NULL;
		} else if (!strncmp(line, "driver ", 7)) {
			driver = line + 7;
		} else if (!strncmp(line, "noise ", 6)) {
			noise = line + 6;
		} else if (sscanf(line, "lost %d", &place) == 1 && place >= 0 && place < MAX_GPUS) {
			lost[place] = 1;
		} else if (sscanf(line, "xid %d %llu", &place, &code) == 2 && place >= 0 && place < MAX_GPUS && xid_count < MAX_LINES) {
			xids[xid_count].place = place;
			xids[xid_count++].code = code;
		} else if ((!strncmp(line, "fail ", 5) || !strncmp(line, "hang ", 5) || !strncmp(line, "slow ", 5) || !strncmp(line, "crash ", 6)) && fault_count < MAX_LINES) {
			faults[fault_count++] = line;
		}
	}
	return 1;
}

// fault does what a fail, hang, slow or crash line asks of this function.
static Return fault(const char *function, int place)
{
	for (unsigned int i = 0; i < fault_count; i++) {
		char verb[8], name[64];
		int first = -1, second = -1;
		if (sscanf(faults[i], "%7s %63s %d %d", verb, name, &first, &second) < 2)
			continue;
		int where = verb[0] == 'f' ? second : verb[0] == 's' ? -1 : first;
		if (strcmp(name, function) || (where >= 0 && where != place))
			continue;
		if (verb[0] == 'f')
			return (Return)first;
		if (verb[0] == 's') {
			static int slept; // it is the first call that starts a GPU
			if (!slept++)
				usleep((useconds_t)first * 1000);
			continue;
		}
		while (verb[0] == 'h')
			pause();
		int *volatile nowhere = NULL;
		*(volatile int *)nowhere = 0;
	}
	return OK;
}

static Return begin(const char *function)
{
	Return r = fault(function, -1);
	return r ? r : users ? OK : UNINITIALIZED;
}

static Return begin_device(const char *function, Device device, int *place)
{
	int known = device >= handles && device < handles + MAX_GPUS;
	*place = known ? (int)(device - handles) : -1;
	Return r = fault(function, *place);
	if (r)
		return r;
	if (!users)
		return UNINITIALIZED;
	if (!known)
		return INVALID_ARGUMENT;
	// A handle outlives a card that was pulled out.
	return lost[*place] || *place >= (int)gpu_count ? GPU_IS_LOST : OK;
}

#define BEGIN() \
	do { \
		Return r = begin(__func__); \
		if (r) \
			return r; \
	} while (0)
#define BEGIN_DEVICE(device) \
	int place; \
	do { \
		Return r = begin_device(__func__, device, &place); \
		if (r) \
			return r; \
	} while (0)

// value finds a key's text, which a space or the end of the line ends.
static const char *value(int place, const char *key)
{
	char pattern[32];
	int length = snprintf(pattern, sizeof pattern, " %s=", key);
	const char *found = strstr(gpus[place].keys, pattern);
	return found ? found + length : NULL;
}

static Return number(int place, const char *key, unsigned long long *out)
{
	const char *text = value(place, key);
	if (!text)
		return NOT_SUPPORTED;
	*out = strtoull(text, NULL, 10); // "-1" wraps, as in a driver's cast
	return OK;
}

static Return copy(const char *text, size_t size, char *out, unsigned int length)
{
	if (!text)
		return NOT_SUPPORTED;
	if (!out)
		return INVALID_ARGUMENT;
	if (size >= length)
		return INSUFFICIENT_SIZE;
	memcpy(out, text, size);
	out[size] = 0;
	return OK;
}

static Return get_memory(int place, unsigned long long *total, unsigned long long *reserved, unsigned long long *used)
{
	*reserved = 0;
	number(place, "reserved", reserved);
	Return r = number(place, "total", total);
	return r ? r : number(place, "used", used);
}

API(nvmlInit_v2)(void)
{
	if (!load())
		return DRIVER_NOT_LOADED;
	Return r = fault(__func__, -1);
	if (r)
		return r;
	for (int fd = 1; noise && fd <= 2; fd++)
		dprintf(fd, "%s\n", noise);
	users++;
	return OK;
}

API(nvmlShutdown)(void)
{
	BEGIN();
	users--;
	return OK;
}

VISIBLE(nvmlErrorString) const char *nvmlErrorString(Return result)
{
	fault(__func__, -1);
	static const char *const texts[] = {
		[OK] = "Success", [UNINITIALIZED] = "Uninitialized", [INVALID_ARGUMENT] = "Invalid Argument",
		[NOT_SUPPORTED] = "Not Supported", [INSUFFICIENT_SIZE] = "Insufficient Size",
		[DRIVER_NOT_LOADED] = "Driver Not Loaded", [TIMEOUT] = "Timeout", [GPU_IS_LOST] = "GPU is lost",
		[ARGUMENT_VERSION_MISMATCH] = "Argument version mismatch",
	};
	int known = result < sizeof texts / sizeof *texts && texts[result];
	return known ? texts[result] : "Unknown Error";
}

API(nvmlSystemGetDriverVersion)(char *version, unsigned int length)
{
	BEGIN();
	return copy(driver, driver ? strlen(driver) : 0, version, length);
}

API(nvmlDeviceGetCount_v2)(unsigned int *count)
{
	if (users && !load())
		return UNKNOWN;
	BEGIN();
	*count = gpu_count;
	return OK;
}

API(nvmlDeviceGetHandleByIndex_v2)(unsigned int index, Device *device)
{
	Return r = fault(__func__, (int)index);
	if (r)
		return r;
	if (!users)
		return UNINITIALIZED;
	if (index >= gpu_count)
		return INVALID_ARGUMENT;
	*device = handles + index;
	return OK;
}

API(nvmlDeviceGetUUID)(Device device, char *uuid, unsigned int length)
{
	BEGIN_DEVICE(device);
	const char *text = value(place, "uuid");
	return copy(text, text ? strcspn(text, " ") : 0, uuid, length);
}

API(nvmlDeviceGetName)(Device device, char *name, unsigned int length)
{
	BEGIN_DEVICE(device);
	const char *text = gpus[place].name;
	return copy(text, text ? strlen(text) : 0, name, length);
}

API(nvmlDeviceGetPciInfo_v3)(Device device, PciInfo *pci)
{
	BEGIN_DEVICE(device);
	const char *text = value(place, "bus");
	memset(pci, 0, sizeof *pci);
	Return r = copy(text, text ? strcspn(text, " ") : 0, pci->busId, sizeof pci->busId);
	if (!r && sscanf(pci->busId, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) == 3)
		snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xffff, pci->bus & 0xff, pci->device & 0x1f);
	return r;
}

API(nvmlDeviceGetUtilizationRates)(Device device, Utilization *out)
{
	BEGIN_DEVICE(device);
	unsigned long long mig = 0, gpu, memory = 0;
	number(place, "mig", &mig);
	if (mig == 1 || number(place, "util", &gpu))
		return NOT_SUPPORTED;
	number(place, "memutil", &memory);
	*out = (Utilization){(unsigned int)gpu, (unsigned int)memory};
	return OK;
}

API(nvmlDeviceGetMemoryInfo)(Device device, Memory *out)
{
	BEGIN_DEVICE(device);
	unsigned long long total, reserved, used;
	Return r = get_memory(place, &total, &reserved, &used);
	if (!r) // this first version counts what is reserved as used
		*out = (Memory){total, total - reserved - used, reserved + used};
	return r;
}

API(nvmlDeviceGetMemoryInfo_v2)(Device device, Memory_v2 *out)
{
	BEGIN_DEVICE(device);
	if (out->version != (sizeof *out | 2 << 24))
		return ARGUMENT_VERSION_MISMATCH;
	unsigned long long total, reserved, used;
	Return r = get_memory(place, &total, &reserved, &used);
	if (!r)
		*out = (Memory_v2){out->version, total, reserved, total - reserved - used, used};
	return r;
}

// The functions that give one plain number.
#define GETTER(function, type, key) \
	API(function)(Device device, type *out) \
	{ \
		BEGIN_DEVICE(device); \
		unsigned long long n; \
		Return r = number(place, key, &n); \
		if (!r) \
			*out = (type)n; \
		return r; \
	}

GETTER(nvmlDeviceGetPowerUsage, unsigned int, "power")
GETTER(nvmlDeviceGetEnforcedPowerLimit, unsigned int, "limit")
GETTER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, "energy")
GETTER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, "reasons")
GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, "reasons")

// The functions that give one number of several: which picks its key.
#define CHOOSER(function, choices, ...) \
	API(function)(Device device, unsigned int which, unsigned int *out) \
	{ \
		static const char *const keys[choices] = {__VA_ARGS__}; \
		BEGIN_DEVICE(device); \
		if (which >= choices) \
			return INVALID_ARGUMENT; \
		unsigned long long n; \
		Return r = keys[which] ? number(place, keys[which], &n) : NOT_SUPPORTED; \
		if (!r) \
			*out = (unsigned int)n; \
		return r; \
	}

CHOOSER(nvmlDeviceGetTemperature, 1, "temp")
CHOOSER(nvmlDeviceGetClockInfo, 4, NULL, "sm", "mem", NULL)

API(nvmlDeviceGetTotalEccErrors)(Device device, unsigned int type, unsigned int counter, unsigned long long *count)
{
	BEGIN_DEVICE(device);
	if (type > 1 || counter > 1)
		return INVALID_ARGUMENT;
	Return r = number(place, type == 0 ? "corrected" : "uncorrected", count);
	if (!r && counter == 0)
		*count = 0; // since the driver was loaded; the description only knows the lifetime
	return r;
}

API(nvmlDeviceGetMigMode)(Device device, unsigned int *current, unsigned int *pending)
{
	BEGIN_DEVICE(device);
	unsigned long long mig;
	Return r = number(place, "mig", &mig);
	if (!r)
		*current = *pending = (unsigned int)mig;
	return r;
}

API(nvmlDeviceGetFieldValues)(Device device, int count, FieldValue *values)
{
	BEGIN_DEVICE(device);
	for (FieldValue *v = values; v < values + count; v++) {
		unsigned long long n;
		v->result = v->fieldId == 230 ? number(place, "recovery", &n) : NOT_SUPPORTED;
		if (v->result)
			continue;
		v->valueType = 1; // unsigned int
		v->value.ui = (unsigned int)n;
	}
	return OK;
}

API(nvmlEventSetCreate)(EventSet *set)
{
	load(); // what happened before now is never told
	BEGIN();
	*set = calloc(1, sizeof **set);
	if (!*set)
		return MEMORY;
	(*set)->next = xid_count;
	return OK;
}

API(nvmlDeviceRegisterEvents)(Device device, unsigned long long types, EventSet set)
{
	BEGIN_DEVICE(device);
	if (!set)
		return INVALID_ARGUMENT;
	if (types & 8)
		set->registered[place] = 1;
	return OK;
}

API(nvmlEventSetWait_v2)(EventSet set, EventData *data, unsigned int timeout)
{
	(void)timeout; // a test has no time to wait
	if (users && !load())
		return UNKNOWN;
	BEGIN();
	if (!set || !data)
		return INVALID_ARGUMENT;
	if (set->next > xid_count)
		set->next = xid_count; // the file was shortened: lines to come are new
	while (set->next < xid_count) {
		int place = xids[set->next].place;
		unsigned long long code = xids[set->next++].code;
		if (!set->registered[place])
			continue;
		*data = (EventData){handles + place, 8, code, 0xFFFFFFFF, 0xFFFFFFFF};
		return OK;
	}
	return TIMEOUT;
}

API(nvmlEventSetFree)(EventSet set)
{
	BEGIN();
	free(set);
	return OK;
}
