// Catch2's version 2 (Debian 12) and version 3 (Ubuntu 24.04) under one name.
#pragma once

#if HAX_CATCH_MAJOR >= 3
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
