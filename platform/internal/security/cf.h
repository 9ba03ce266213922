// What the C files of package security share. The rule of ownership is that of
// keychain.h; a name that ends in _create hands out a reference, as Core
// Foundation has it, NULL if there is no memory.

#ifndef SMIME_CF_H
#define SMIME_CF_H

#include "keychain.h"

#include <CoreFoundation/CoreFoundation.h>
#include <Security/Security.h>

// CFRelease for what may be NULL. In line, so that an analyser sees through it.
static inline void kc_drop(CFTypeRef ref) {
	if (ref != NULL) {
		CFRelease(ref);
	}
}

CFStringRef kc_text_create(const char *text);
CFMutableDictionaryRef kc_dictionary_create(void);
CFArrayRef kc_single_create(CFTypeRef value);

// Copies a CFData; anything else counts as nothing.
kc_status kc_bytes_of(CFTypeRef value, kc_bytes *out);
// Copies a CFString as UTF-8; anything else counts as nothing.
kc_status kc_text_of(CFTypeRef value, kc_bytes *out);

// Takes the code out of an error, and gives the error back.
kc_status kc_status_of(CFErrorRef CF_CONSUMED error);
// Passes on data that a call of the framework made, or says why there is none;
// gives both back.
kc_status kc_hand_out(CFDataRef CF_CONSUMED made, CFErrorRef CF_CONSUMED error, kc_bytes *out);

#endif
