/* Times a model in LiteRT's own library, without Python: the independent side of timing_fidelity.py.
 *
 * timing_fidelity_native LIBRARY MODEL INPUT OUTPUT THREADS WARMUP_S TIMING_S MIN_INVOKES MAX_INVOKES
 *
 * INPUT holds the bytes of the model's only input; those of its only output are written to OUTPUT. Warm-up and timing
 * end by the rules of device_agent/timing.py. Prints a line of JSON; ends with 1 and a line on stderr if a call fails.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CPU = 1, READ = 0, WRITE = 1, RANK = 8 };

/* litert/c/litert_layout.h and litert_model_types.h */
typedef struct {
    unsigned rank : 7;
    unsigned has_strides : 1;
    int32_t dimensions[RANK];
    uint32_t strides[RANK];
} Layout;
typedef struct {
    int element_type;
    Layout layout;
} TensorType;
typedef void *Handle;
typedef int (*Run)(Handle, size_t, size_t, Handle *, size_t, Handle *);

static void *library;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void *symbol(const char *name) {
    void *found = dlsym(library, name);
    if (!found) fail(name, "not in the library");
    return found;
}

static void check(const char *name, int status) {
    char text[32];
    snprintf(text, sizeof text, "status %d", status);
    if (status) fail(name, text);
}

/* CALL("Name", (types), arguments...) looks a function up, calls it and sees that it succeeded. */
#define CALL(name, types, ...) check(name, ((int(*) types)symbol("LiteRt" name))(__VA_ARGS__))

static Handle environment, model, compiled, input, output;
static Run run;

static void add_options(Handle options, const char *identifier, const char *toml) {
    Handle added;
    CALL("CreateOpaqueOptions", (const char *, void *, void (*)(void *), Handle *), identifier, strdup(toml), free,
         &added);
    CALL("AddOpaqueOptions", (Handle, Handle), options, added);
}

static void open_model(const char *path, int threads) {
    Handle options;
    char toml[64];
    CALL("CreateEnvironment", (int, void *, Handle *), 0, NULL, &environment);
    CALL("CreateModelFromFile", (Handle, const char *, Handle *), environment, path, &model);
    CALL("CreateOptions", (Handle *), &options);
    CALL("SetOptionsHardwareAccelerators", (Handle, int), options, CPU);
    snprintf(toml, sizeof toml, "num_threads = %d\n", threads);
    add_options(options, "xnnpack", toml);
    CALL("CreateCompiledModel", (Handle, Handle, Handle, Handle *), environment, model, options, &compiled);
}

static Handle make_buffer(Handle tensor, const char *requirements) {
    Handle needs, buffer;
    TensorType type;
    int (*require)(Handle, size_t, size_t, Handle *) = symbol(requirements);
    CALL("GetRankedTensorType", (Handle, TensorType *), tensor, &type);
    check(requirements, require(compiled, 0, 0, &needs));
    CALL("CreateManagedTensorBufferFromRequirements", (Handle, const TensorType *, Handle, Handle *), environment, &type,
         needs, &buffer);
    return buffer;
}

static void make_buffers(void) {
    Handle signature, tensor;
    CALL("GetModelSignature", (Handle, size_t, Handle *), model, 0, &signature);
    CALL("GetSignatureInputTensorByIndex", (Handle, size_t, Handle *), signature, 0, &tensor);
    input = make_buffer(tensor, "LiteRtGetCompiledModelInputBufferRequirements");
    CALL("GetSignatureOutputTensorByIndex", (Handle, size_t, Handle *), signature, 0, &tensor);
    output = make_buffer(tensor, "LiteRtGetCompiledModelOutputBufferRequirements");
}

/* Copies a whole tensor from a file, or into one. */
static void copy(Handle buffer, const char *path, int lock_mode) {
    size_t size, done;
    void *memory;
    FILE *file = fopen(path, lock_mode == WRITE ? "rb" : "wb");
    if (!file) fail(path, "cannot be opened");
    CALL("GetTensorBufferPackedSize", (Handle, size_t *), buffer, &size);
    CALL("LockTensorBuffer", (Handle, void **, int), buffer, &memory, lock_mode);
    done = lock_mode == WRITE ? fread(memory, 1, size, file) : fwrite(memory, 1, size, file);
    CALL("UnlockTensorBuffer", (Handle), buffer);
    if (done != size || fclose(file)) fail(path, "has not the size of the tensor");
}

static int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int64_t timed_invoke(void) {
    int64_t begin = clock_ns();
    int status = run(compiled, 0, 1, &input, 1, &output);
    int64_t end = clock_ns();
    check("RunCompiledModel", status);
    return end - begin;
}

static int ascending(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static double median(int64_t *values, size_t count) {
    qsort(values, count, sizeof *values, ascending);
    return (values[(count - 1) / 2] + values[count / 2]) / 2.0;
}

/* Invokes for at least so long, at most max times; returns how often. */
static size_t invoke_for(int64_t duration_ns, size_t min, size_t max, int64_t *taken) {
    int64_t deadline = clock_ns() + duration_ns;
    size_t count = 0;
    while (count < max && (count < min || clock_ns() < deadline)) taken[count++] = timed_invoke();
    return count;
}

/* Until two successive blocks agree within 2 %, for at least warmup_s and at most five times as long. */
static void warm_up(double warmup_s, int64_t *taken, size_t max) {
    int64_t begin = clock_ns();
    double before = 0;
    while (warmup_s > 0) {
        double now = median(taken, invoke_for((int64_t)(warmup_s * 0.25e9), 1, max, taken));
        double elapsed_s = (clock_ns() - begin) * 1e-9;
        int steady = now - before <= 0.02 * before && before - now <= 0.02 * before;
        if (elapsed_s >= 5 * warmup_s || (steady && elapsed_s >= warmup_s)) return;
        before = now;
    }
}

int main(int count, char **words) {
    enum { ROOM = 1 << 22 };
    int64_t *taken = malloc(ROOM * sizeof *taken);
    size_t invokes;
    if (count != 10 || !taken) fail(words[0], "expected nine arguments");
    library = dlopen(words[1], RTLD_NOW | RTLD_GLOBAL);
    if (!library) fail(words[1], dlerror());
    open_model(words[2], atoi(words[5]));
    make_buffers();
    run = (Run)symbol("LiteRtRunCompiledModel");
    copy(input, words[3], WRITE);
    timed_invoke();
    copy(output, words[4], READ);
    warm_up(atof(words[6]), taken, ROOM);
    invokes = invoke_for((int64_t)(atof(words[7]) * 1e9), atol(words[8]), atol(words[9]), taken);
    printf("{\"invokes\": %zu, \"median_ns\": %.1f}\n", invokes, median(taken, invokes));
    fflush(stdout);
    /* The library's own clean-up at exit is not what is measured, and takes long. */
    _Exit(0);
}
