# Writes OUT with the version and the commit, and touches it only when they change.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#pragma once\n#define HAX_VERSION \"@VERSION@\"\n#define HAX_COMMIT \"@commit@\"\n" @ONLY)
