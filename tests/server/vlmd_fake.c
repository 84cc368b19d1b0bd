/* vlmd_fake.c - the server over the scripted engine: build/tests/server/vlmd_fake. */
#include "server/main.c"
#include "tests/server/fake_engine.c"
