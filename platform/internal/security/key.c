//go:build darwin && cgo

#include "cf.h"

static kc_status program_append(CFMutableArrayRef programs, const char *path) {
	SecTrustedApplicationRef program = NULL;
	kc_status status = SecTrustedApplicationCreateFromPath(path, &program);
	if (status != errSecSuccess) {
		return status;
	}
	if (program == NULL) {
		return errSecInternalComponent;
	}
	CFArrayAppendValue(programs, program);
	CFRelease(program);
	return errSecSuccess;
}

kc_status kc_programs_new(kc_handle *out) {
	CFMutableArrayRef programs = CFArrayCreateMutable(NULL, 0, &kCFTypeArrayCallBacks);
	if (programs == NULL) {
		return errSecAllocate;
	}
	// No path is this very program (SecTrustedApplication.h).
	kc_status status = program_append(programs, NULL);
	if (status != errSecSuccess) {
		CFRelease(programs);
		return status;
	}
	*out = (kc_handle)programs;
	return errSecSuccess;
}

kc_status kc_programs_add(kc_handle programs, const char *path) {
	return program_append((CFMutableArrayRef)programs, path);
}

// half_create gives the attributes that the private and the public part share.
// Both must be permanent: the system finds the public part by its hash in the
// keychain (SecKey.cpp, SecCDSAKeyCopyPublicKey).
static CFMutableDictionaryRef half_create(CFStringRef name, CFDataRef tag) {
	CFMutableDictionaryRef half = kc_dictionary_create();
	if (half != NULL) {
		CFDictionarySetValue(half, kSecAttrIsPermanent, kCFBooleanTrue);
		CFDictionarySetValue(half, kSecAttrApplicationTag, tag);
		CFDictionarySetValue(half, kSecAttrLabel, name);
	}
	return half;
}

// key_generate asks for the key. Access, keychain and above all "not
// extractable" must stand at the top: below kSecPrivateKeyAttrs the last is
// silently ignored (SecKey.cpp).
static kc_status key_generate(SecKeychainRef keychain, SecAccessRef access, CFStringRef type, CFNumberRef size,
	CFDictionaryRef half, kc_handle *out) {
	CFMutableDictionaryRef wanted = kc_dictionary_create();
	if (wanted == NULL) {
		return errSecAllocate;
	}
	CFDictionarySetValue(wanted, kSecAttrKeyType, type);
	CFDictionarySetValue(wanted, kSecAttrKeySizeInBits, size);
	CFDictionarySetValue(wanted, kSecAttrIsExtractable, kCFBooleanFalse);
	CFDictionarySetValue(wanted, kSecAttrAccess, access);
	CFDictionarySetValue(wanted, kSecUseKeychain, keychain);
	CFDictionarySetValue(wanted, kSecPrivateKeyAttrs, half);
	CFDictionarySetValue(wanted, kSecPublicKeyAttrs, half);
	CFErrorRef error = NULL;
	SecKeyRef key = SecKeyCreateRandomKey(wanted, &error);
	CFRelease(wanted);
	if (key == NULL) {
		return kc_status_of(error);
	}
	kc_drop(error);
	*out = (kc_handle)key;
	return errSecSuccess;
}

kc_status kc_key_make(kc_handle keychain, kc_handle programs, int32_t kind, int32_t bits,
	const char *name, const uint8_t *tag, size_t tag_len, kc_handle *out) {
	CFStringRef type = kind == KC_EC ? kSecAttrKeyTypeECSECPrimeRandom : kSecAttrKeyTypeRSA;
	SecAccessRef access = NULL;
	CFStringRef shown = kc_text_create(name);
	CFDataRef label = CFDataCreate(NULL, tag, (CFIndex)tag_len);
	CFNumberRef size = CFNumberCreate(NULL, kCFNumberSInt32Type, &bits);
	CFMutableDictionaryRef half = shown != NULL && label != NULL ? half_create(shown, label) : NULL;
	kc_status status = errSecAllocate;
	if (half != NULL && size != NULL) {
		status = SecAccessCreate(shown, (CFArrayRef)programs, &access);
	}
	if (status == errSecSuccess) {
		status = access == NULL ? errSecInternalComponent : key_generate((SecKeychainRef)keychain, access, type, size, half, out);
	}
	kc_drop(access);
	kc_drop(half);
	kc_drop(size);
	kc_drop(label);
	kc_drop(shown);
	return status;
}

kc_status kc_key_extractable(kc_handle key, bool *extractable_out) {
	CFDictionaryRef attributes = SecKeyCopyAttributes((SecKeyRef)key);
	if (attributes == NULL) {
		return errSecInternalComponent;
	}
	CFTypeRef value = CFDictionaryGetValue(attributes, kSecAttrIsExtractable);
	*extractable_out = value == NULL || CFGetTypeID(value) != CFBooleanGetTypeID() || CFBooleanGetValue((CFBooleanRef)value);
	CFRelease(attributes);
	return errSecSuccess;
}

// algorithm_of is NULL for what has no number here.
static SecKeyAlgorithm algorithm_of(int32_t algorithm) {
	switch (algorithm) {
	case KC_SIGN_PKCS1_SHA256: return kSecKeyAlgorithmRSASignatureDigestPKCS1v15SHA256;
	case KC_SIGN_PKCS1_SHA384: return kSecKeyAlgorithmRSASignatureDigestPKCS1v15SHA384;
	case KC_SIGN_PKCS1_SHA512: return kSecKeyAlgorithmRSASignatureDigestPKCS1v15SHA512;
	case KC_SIGN_PSS_SHA256: return kSecKeyAlgorithmRSASignatureDigestPSSSHA256;
	case KC_SIGN_PSS_SHA384: return kSecKeyAlgorithmRSASignatureDigestPSSSHA384;
	case KC_SIGN_PSS_SHA512: return kSecKeyAlgorithmRSASignatureDigestPSSSHA512;
	case KC_SIGN_ECDSA_SHA256: return kSecKeyAlgorithmECDSASignatureDigestX962SHA256;
	case KC_SIGN_ECDSA_SHA384: return kSecKeyAlgorithmECDSASignatureDigestX962SHA384;
	case KC_SIGN_ECDSA_SHA512: return kSecKeyAlgorithmECDSASignatureDigestX962SHA512;
	case KC_DECRYPT_PKCS1: return kSecKeyAlgorithmRSAEncryptionPKCS1;
	case KC_DECRYPT_OAEP_SHA1: return kSecKeyAlgorithmRSAEncryptionOAEPSHA1;
	case KC_DECRYPT_OAEP_SHA256: return kSecKeyAlgorithmRSAEncryptionOAEPSHA256;
	case KC_DECRYPT_OAEP_SHA384: return kSecKeyAlgorithmRSAEncryptionOAEPSHA384;
	case KC_DECRYPT_OAEP_SHA512: return kSecKeyAlgorithmRSAEncryptionOAEPSHA512;
	default: return NULL;
	}
}

static bool can(kc_handle key, SecKeyOperationType operation, SecKeyAlgorithm algorithm) {
	return algorithm != NULL && SecKeyIsAlgorithmSupported((SecKeyRef)key, operation, algorithm);
}

kc_status kc_sign(kc_handle key, int32_t algorithm, const uint8_t *digest, size_t digest_len, kc_bytes *out) {
	SecKeyAlgorithm how = algorithm_of(algorithm);
	if (!can(key, kSecKeyOperationTypeSign, how)) {
		return errSecUnimplemented;
	}
	CFDataRef data = CFDataCreate(NULL, digest, (CFIndex)digest_len);
	if (data == NULL) {
		return errSecAllocate;
	}
	CFErrorRef error = NULL;
	CFDataRef made = SecKeyCreateSignature((SecKeyRef)key, how, data, &error);
	CFRelease(data);
	return kc_hand_out(made, error, out);
}

kc_status kc_decrypt(kc_handle key, int32_t algorithm, const uint8_t *text, size_t text_len, kc_bytes *out) {
	SecKeyAlgorithm how = algorithm_of(algorithm);
	if (!can(key, kSecKeyOperationTypeDecrypt, how)) {
		return errSecUnimplemented;
	}
	CFDataRef data = CFDataCreate(NULL, text, (CFIndex)text_len);
	if (data == NULL) {
		return errSecAllocate;
	}
	CFErrorRef error = NULL;
	CFDataRef made = SecKeyCreateDecryptedData((SecKeyRef)key, how, data, &error);
	CFRelease(data);
	return kc_hand_out(made, error, out);
}

// point_create makes a public key of the other side's point.
static SecKeyRef point_create(int32_t bits, const uint8_t *point, size_t point_len, CFErrorRef *error) {
	CFMutableDictionaryRef attributes = kc_dictionary_create();
	CFNumberRef size = CFNumberCreate(NULL, kCFNumberSInt32Type, &bits);
	CFDataRef data = CFDataCreate(NULL, point, (CFIndex)point_len);
	SecKeyRef key = NULL;
	if (attributes != NULL && size != NULL && data != NULL) {
		CFDictionarySetValue(attributes, kSecAttrKeyType, kSecAttrKeyTypeECSECPrimeRandom);
		CFDictionarySetValue(attributes, kSecAttrKeyClass, kSecAttrKeyClassPublic);
		CFDictionarySetValue(attributes, kSecAttrKeySizeInBits, size);
		key = SecKeyCreateWithData(data, attributes, error);
	}
	kc_drop(data);
	kc_drop(size);
	kc_drop(attributes);
	return key;
}

kc_status kc_agree(kc_handle key, int32_t bits, const uint8_t *point, size_t point_len, kc_bytes *out) {
	SecKeyAlgorithm how = kSecKeyAlgorithmECDHKeyExchangeStandard;
	if (!can(key, kSecKeyOperationTypeKeyExchange, how)) {
		return errSecUnimplemented;
	}
	CFErrorRef error = NULL;
	SecKeyRef other = point_create(bits, point, point_len, &error);
	if (other == NULL) {
		return kc_status_of(error); // with NULL the next call would end the process
	}
	kc_drop(error);
	error = NULL;
	CFDictionaryRef none = CFDictionaryCreate(NULL, NULL, NULL, 0, &kCFTypeDictionaryKeyCallBacks, &kCFTypeDictionaryValueCallBacks);
	if (none == NULL) {
		CFRelease(other);
		return errSecAllocate;
	}
	CFDataRef made = SecKeyCopyKeyExchangeResult((SecKeyRef)key, how, other, none, &error);
	CFRelease(none);
	CFRelease(other);
	return kc_hand_out(made, error, out);
}
