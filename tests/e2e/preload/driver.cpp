// A libcuda.so.1 that answers what the environment says, for machines that a test does not have:
// HAX_TEST_DRIVER="VERSION INIT DEVICES", e.g. "12040 0 1".
#include <cstdio>
#include <cstdlib>

namespace {

struct Answers {
  int version = 0, init = 0, devices = 0;
  Answers() {
    const char* text = std::getenv("HAX_TEST_DRIVER");
    if (text == nullptr || std::sscanf(text, "%d %d %d", &version, &init, &devices) != 3) std::abort();
  }
};

const Answers& answers() {
  static const Answers given;
  return given;
}

}  // namespace

extern "C" {

int cuDriverGetVersion(int* version) {
  *version = answers().version;
  return 0;
}

int cuInit(unsigned) { return answers().init; }

int cuDeviceGetCount(int* count) {
  *count = answers().devices;
  return 0;
}

int cuDeviceGetName(char* name, int length, int) {
  std::snprintf(name, static_cast<size_t>(length), "Test GPU");
  return 0;
}

int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = size_t{1} << 30;
  return 0;
}

int cuGetErrorName(int error, const char** name) {
  *name = error == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : "CUDA_ERROR_UNKNOWN";
  return 0;
}

int cuGetErrorString(int, const char** text) {
  *text = "in the words of the driver";
  return 0;
}

}  // extern "C"
