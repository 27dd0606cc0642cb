// libcurand.so.10: generators can be made, as candle does for every device, but nothing is drawn.
#include <cstdio>

namespace {

int unsupported(const char *name) {
    fprintf(stderr, "cuda-on-cpu: %s is not emulated\n", name);
    return 201; // CURAND_STATUS_LAUNCH_FAILURE
}

} // namespace

extern "C" {

int curandCreateGenerator(void **generator, int) { return *generator = new int, 0; }
int curandDestroyGenerator(void *generator) { return delete static_cast<int *>(generator), 0; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }
int curandSetGeneratorOffset(void *, unsigned long long) { return 0; }
int curandSetStream(void *, void *) { return 0; }
int curandGenerate() { return unsupported("curandGenerate"); }
int curandGenerateLongLong() { return unsupported("curandGenerateLongLong"); }
int curandGenerateUniform() { return unsupported("curandGenerateUniform"); }
int curandGenerateUniformDouble() { return unsupported("curandGenerateUniformDouble"); }
int curandGenerateNormal() { return unsupported("curandGenerateNormal"); }
int curandGenerateNormalDouble() { return unsupported("curandGenerateNormalDouble"); }
int curandGenerateLogNormal() { return unsupported("curandGenerateLogNormal"); }
int curandGenerateLogNormalDouble() { return unsupported("curandGenerateLogNormalDouble"); }
int curandGeneratePoisson() { return unsupported("curandGeneratePoisson"); }

} // extern "C"
