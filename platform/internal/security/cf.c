//go:build darwin && cgo

#include "cf.h"

#include <stdlib.h>
#include <string.h>

void kc_release(kc_handle handle) {
	if (handle != 0) {
		CFRelease((CFTypeRef)handle);
	}
}

CFStringRef kc_text_create(const char *text) {
	return CFStringCreateWithCString(NULL, text, kCFStringEncodingUTF8);
}

CFMutableDictionaryRef kc_dictionary_create(void) {
	return CFDictionaryCreateMutable(NULL, 0, &kCFTypeDictionaryKeyCallBacks, &kCFTypeDictionaryValueCallBacks);
}

CFArrayRef kc_single_create(CFTypeRef value) {
	return CFArrayCreate(NULL, (const void **)&value, 1, &kCFTypeArrayCallBacks);
}

static kc_status bytes_copy(const uint8_t *data, CFIndex len, kc_bytes *out) {
	out->data = NULL;
	out->len = 0;
	if (data == NULL || len <= 0) {
		return errSecSuccess;
	}
	out->data = malloc((size_t)len);
	if (out->data == NULL) {
		return errSecAllocate;
	}
	memcpy(out->data, data, (size_t)len);
	out->len = (size_t)len;
	return errSecSuccess;
}

kc_status kc_bytes_of(CFTypeRef value, kc_bytes *out) {
	if (value == NULL || CFGetTypeID(value) != CFDataGetTypeID()) {
		return bytes_copy(NULL, 0, out);
	}
	return bytes_copy(CFDataGetBytePtr((CFDataRef)value), CFDataGetLength((CFDataRef)value), out);
}

kc_status kc_text_of(CFTypeRef value, kc_bytes *out) {
	if (value == NULL || CFGetTypeID(value) != CFStringGetTypeID()) {
		return bytes_copy(NULL, 0, out);
	}
	CFDataRef utf8 = CFStringCreateExternalRepresentation(NULL, (CFStringRef)value, kCFStringEncodingUTF8, '?');
	kc_status status = kc_bytes_of(utf8, out);
	kc_drop(utf8);
	return status;
}

kc_status kc_status_of(CFErrorRef CF_CONSUMED error) {
	if (error == NULL) {
		return errSecInternalComponent;
	}
	CFIndex code = CFErrorGetCode(error);
	CFRelease(error);
	if (code == 0 || code < INT32_MIN || code > INT32_MAX) {
		return errSecInternalComponent;
	}
	return (kc_status)code;
}

kc_status kc_hand_out(CFDataRef CF_CONSUMED made, CFErrorRef CF_CONSUMED error, kc_bytes *out) {
	if (made == NULL) {
		return kc_status_of(error);
	}
	kc_status status = kc_bytes_of(made, out);
	CFRelease(made);
	kc_drop(error);
	return status;
}
