// NVIDIA's driver, asked through its C interface, whose ABI is stable: no CUDA header is needed to build, and
// where no driver is installed nothing is missing.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace hax {

struct NvidiaGpu {
  std::string name;
  double gibibytes = 0.0;
};

struct NvidiaDriver {
  bool found = false;           // the system's libcuda.so.1
  int cuda_version = 0;         // the newest that it supports: 12080 is 12.8; 0: it does not say
  std::string error;            // its own words where it does not start
  std::vector<NvidiaGpu> gpus;  // those that are visible to this process
};

NvidiaDriver ask_nvidia_driver();
std::string cuda_version_text(int version);  // "12.8" of 12080

// What decides whether this process can compute on a GPU.
struct CudaFacts {
  int built_with = 0;  // the CUDA version of the build, as above; 0: it has none
  NvidiaDriver driver;
  std::optional<std::string> visible_devices;  // CUDA_VISIBLE_DEVICES
  bool runtime_works = false;                  // whether LibTorch, too, finds a device
  std::string runtime_words;                   // what it said of that, if anything
};

// Why it cannot.
struct CudaFault {
  std::string what, remedy;
  bool broken = false;  // there is a driver to compute with, and it does not work
};

// No value where it can.
std::optional<CudaFault> cuda_fault(const CudaFacts& facts);

}  // namespace hax
