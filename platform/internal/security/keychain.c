//go:build darwin && cgo

#include "cf.h"

#include <stdlib.h>

kc_status kc_allow_questions(bool allowed) {
	return SecKeychainSetUserInteractionAllowed(allowed);
}

kc_status kc_keychain_default(kc_handle *out) {
	SecKeychainRef keychain = NULL;
	kc_status status = SecKeychainCopyDomainDefault(kSecPreferencesDomainUser, &keychain);
	if (status != errSecSuccess) {
		return status;
	}
	if (keychain == NULL) {
		return errSecNoDefaultKeychain;
	}
	*out = (kc_handle)keychain;
	return errSecSuccess;
}

kc_status kc_keychain_open(const char *path, kc_handle *out) {
	SecKeychainRef keychain = NULL;
	kc_status status = SecKeychainOpen(path, &keychain);
	if (status != errSecSuccess) {
		return status;
	}
	if (keychain == NULL) {
		return errSecNoSuchKeychain;
	}
	*out = (kc_handle)keychain;
	return errSecSuccess;
}

kc_status kc_keychain_unlocked(kc_handle keychain, bool *unlocked_out) {
	SecKeychainStatus state = 0;
	kc_status status = SecKeychainGetStatus((SecKeychainRef)keychain, &state);
	if (status != errSecSuccess) {
		return status;
	}
	*unlocked_out = (state & kSecUnlockStateStatus) != 0;
	return errSecSuccess;
}

// query_create begins a search in this one keychain. kSecMatchSearchList also
// keeps it away from the data-protection keychain (SecItem.cpp,
// SecItemCategorizeQuery).
static CFMutableDictionaryRef query_create(SecKeychainRef keychain, CFStringRef class) {
	CFArrayRef places = kc_single_create(keychain);
	if (places == NULL) {
		return NULL;
	}
	CFMutableDictionaryRef query = kc_dictionary_create();
	if (query != NULL) {
		CFDictionarySetValue(query, kSecClass, class);
		CFDictionarySetValue(query, kSecMatchSearchList, places);
	}
	CFRelease(places);
	return query;
}

// search gives query back and hands out an array; nothing found is an empty one.
static kc_status search(CFMutableDictionaryRef CF_CONSUMED query, kc_handle *out) {
	CFDictionarySetValue(query, kSecMatchLimit, kSecMatchLimitAll);
	CFDictionarySetValue(query, kSecReturnRef, kCFBooleanTrue);
	CFTypeRef found = NULL;
	kc_status status = SecItemCopyMatching(query, &found);
	CFRelease(query);
	if (status == errSecItemNotFound) {
		CFArrayRef none = CFArrayCreate(NULL, NULL, 0, &kCFTypeArrayCallBacks);
		if (none == NULL) {
			return errSecAllocate;
		}
		*out = (kc_handle)none;
		return errSecSuccess;
	}
	if (status != errSecSuccess) {
		kc_drop(found);
		return status;
	}
	if (found == NULL || CFGetTypeID(found) != CFArrayGetTypeID()) {
		kc_drop(found);
		return errSecInternalComponent;
	}
	*out = (kc_handle)found;
	return errSecSuccess;
}

// key_query_create searches keys of one class, by an attribute that is data if there
// is any: the tag must never be another type (SecKey.cpp reads it unchecked).
static CFMutableDictionaryRef key_query_create(SecKeychainRef keychain, CFStringRef class,
	CFStringRef attribute, const uint8_t *value, size_t value_len) {
	CFMutableDictionaryRef query = query_create(keychain, kSecClassKey);
	if (query == NULL) {
		return NULL;
	}
	CFDictionarySetValue(query, kSecAttrKeyClass, class);
	if (value == NULL) {
		return query;
	}
	CFDataRef data = CFDataCreate(NULL, value, (CFIndex)value_len);
	if (data == NULL) {
		CFRelease(query);
		return NULL;
	}
	CFDictionarySetValue(query, attribute, data);
	CFRelease(data);
	return query;
}

kc_status kc_keys(kc_handle keychain, const uint8_t *tag, size_t tag_len, kc_handle *out) {
	CFMutableDictionaryRef query = key_query_create((SecKeychainRef)keychain, kSecAttrKeyClassPrivate,
		kSecAttrApplicationTag, tag, tag_len);
	if (query == NULL) {
		return errSecAllocate;
	}
	// Attributes beside the reference: only the item's record is read, not the
	// key (SecItem.cpp, _CreateAttributesDictionaryFromKeyItem).
	CFDictionarySetValue(query, kSecReturnAttributes, kCFBooleanTrue);
	return search(query, out);
}

kc_status kc_certificates(kc_handle keychain, kc_handle *out) {
	CFMutableDictionaryRef query = query_create((SecKeychainRef)keychain, kSecClassCertificate);
	if (query == NULL) {
		return errSecAllocate;
	}
	return search(query, out);
}

size_t kc_count(kc_handle list) {
	return (size_t)CFArrayGetCount((CFArrayRef)list);
}

// entry is an element of a list, borrowed; NULL if it is not of that type.
static CFTypeRef entry(kc_handle list, size_t index, CFTypeID type) {
	if (index >= kc_count(list)) {
		return NULL;
	}
	CFTypeRef value = CFArrayGetValueAtIndex((CFArrayRef)list, (CFIndex)index);
	return value != NULL && CFGetTypeID(value) == type ? value : NULL;
}

// key_entry is the key of an element of kc_keys, borrowed.
static SecKeyRef key_entry(kc_handle list, size_t index) {
	CFDictionaryRef found = entry(list, index, CFDictionaryGetTypeID());
	CFTypeRef key = found != NULL ? CFDictionaryGetValue(found, kSecValueRef) : NULL;
	return key != NULL && CFGetTypeID(key) == SecKeyGetTypeID() ? (SecKeyRef)key : NULL;
}

kc_status kc_keys_describe(kc_handle list, size_t index, kc_bytes *tag_out, kc_bytes *name_out, kc_bytes *label_out) {
	CFDictionaryRef found = entry(list, index, CFDictionaryGetTypeID());
	if (found == NULL) {
		return errSecParam;
	}
	kc_bytes tag = {NULL, 0}, name = {NULL, 0}, label = {NULL, 0};
	kc_status status = kc_bytes_of(CFDictionaryGetValue(found, kSecAttrApplicationTag), &tag);
	if (status == errSecSuccess) {
		status = kc_text_of(CFDictionaryGetValue(found, kSecAttrLabel), &name);
	}
	if (status == errSecSuccess) {
		status = kc_bytes_of(CFDictionaryGetValue(found, kSecAttrApplicationLabel), &label);
	}
	if (status != errSecSuccess) {
		free(tag.data);
		free(name.data);
		free(label.data);
		return status;
	}
	*tag_out = tag;
	*name_out = name;
	*label_out = label;
	return errSecSuccess;
}

kc_status kc_keys_take(kc_handle list, size_t index, kc_handle *out) {
	SecKeyRef key = key_entry(list, index);
	if (key == NULL) {
		return errSecParam;
	}
	CFRetain(key);
	*out = (kc_handle)key;
	return errSecSuccess;
}

// item_delete deletes the one item of a query by reference, and gives the query
// back. Never an identity, nor kSecClassIdentity: that deletes both keys and the
// certificate (SecItem.cpp, _DeleteIdentity).
static kc_status item_delete(CFMutableDictionaryRef CF_CONSUMED query, CFTypeRef item) {
	if (query == NULL) {
		return errSecAllocate;
	}
	CFArrayRef items = kc_single_create(item);
	if (items == NULL) {
		CFRelease(query);
		return errSecAllocate;
	}
	CFDictionarySetValue(query, kSecMatchItemList, items);
	kc_status status = SecItemDelete(query);
	CFRelease(query);
	CFRelease(items);
	return status;
}

// key_delete names the class: both keys of a pair bear the same label, and
// without a class every key of the keychain is compared with this one.
static kc_status key_delete(SecKeychainRef keychain, CFStringRef class, CFTypeRef key) {
	return item_delete(key_query_create(keychain, class, NULL, NULL, 0), key);
}

kc_status kc_keys_delete(kc_handle keychain, kc_handle list, size_t index) {
	SecKeyRef key = key_entry(list, index);
	if (key == NULL) {
		return errSecParam;
	}
	return key_delete((SecKeychainRef)keychain, kSecAttrKeyClassPrivate, key);
}

// publics lists the public keys with a label.
static kc_status publics(kc_handle keychain, const uint8_t *label, size_t label_len, kc_handle *out) {
	if (label == NULL || label_len == 0) {
		return errSecParam; // an empty label would mean every key
	}
	CFMutableDictionaryRef query = key_query_create((SecKeychainRef)keychain, kSecAttrKeyClassPublic,
		kSecAttrApplicationLabel, label, label_len);
	if (query == NULL) {
		return errSecAllocate;
	}
	return search(query, out);
}

kc_status kc_public(kc_handle keychain, const uint8_t *label, size_t label_len, kc_bytes *out) {
	kc_handle list = 0;
	kc_status status = publics(keychain, label, label_len, &list);
	if (status != errSecSuccess) {
		return status;
	}
	SecKeyRef key = (SecKeyRef)entry(list, 0, SecKeyGetTypeID());
	status = errSecItemNotFound;
	if (key != NULL) {
		CFErrorRef error = NULL;
		CFDataRef made = SecKeyCopyExternalRepresentation(key, &error);
		status = kc_hand_out(made, error, out);
	}
	kc_release(list);
	return status;
}

kc_status kc_public_delete(kc_handle keychain, const uint8_t *label, size_t label_len) {
	kc_handle list = 0;
	kc_status status = publics(keychain, label, label_len, &list);
	if (status != errSecSuccess) {
		return status;
	}
	for (size_t i = 0; status == errSecSuccess && i < kc_count(list); i++) {
		CFTypeRef key = entry(list, i, SecKeyGetTypeID());
		status = key == NULL ? errSecInternalComponent : key_delete((SecKeychainRef)keychain, kSecAttrKeyClassPublic, key);
	}
	kc_release(list);
	return status;
}

kc_status kc_certificates_der(kc_handle list, size_t index, kc_bytes *out) {
	SecCertificateRef certificate = (SecCertificateRef)entry(list, index, SecCertificateGetTypeID());
	if (certificate == NULL) {
		return errSecParam;
	}
	return kc_hand_out(SecCertificateCopyData(certificate), NULL, out);
}

kc_status kc_certificates_delete(kc_handle keychain, kc_handle list, size_t index) {
	CFTypeRef certificate = entry(list, index, SecCertificateGetTypeID());
	if (certificate == NULL) {
		return errSecParam;
	}
	return item_delete(query_create((SecKeychainRef)keychain, kSecClassCertificate), certificate);
}

static kc_status certificate_create(const uint8_t *der, size_t der_len, SecCertificateRef *out) {
	CFDataRef data = CFDataCreate(NULL, der, (CFIndex)der_len);
	if (data == NULL) {
		return errSecAllocate;
	}
	SecCertificateRef certificate = SecCertificateCreateWithData(NULL, data);
	CFRelease(data);
	if (certificate == NULL) {
		return errSecDecode;
	}
	*out = certificate;
	return errSecSuccess;
}

kc_status kc_certificate_add(kc_handle keychain, const uint8_t *der, size_t der_len) {
	SecCertificateRef certificate = NULL;
	kc_status status = certificate_create(der, der_len, &certificate);
	if (status != errSecSuccess) {
		return status;
	}
	CFMutableDictionaryRef item = kc_dictionary_create();
	status = errSecAllocate;
	if (item != NULL) {
		CFDictionarySetValue(item, kSecClass, kSecClassCertificate);
		CFDictionarySetValue(item, kSecValueRef, certificate);
		CFDictionarySetValue(item, kSecUseKeychain, (SecKeychainRef)keychain);
		status = SecItemAdd(item, NULL);
	}
	kc_drop(item);
	CFRelease(certificate);
	return status;
}

static kc_status identity_create(kc_handle keychain, const uint8_t *der, size_t der_len, SecIdentityRef *out) {
	SecCertificateRef certificate = NULL;
	kc_status status = certificate_create(der, der_len, &certificate);
	if (status != errSecSuccess) {
		return status;
	}
	SecIdentityRef identity = NULL;
	status = SecIdentityCreateWithCertificate((CFTypeRef)keychain, certificate, &identity);
	CFRelease(certificate);
	if (status != errSecSuccess) {
		return status;
	}
	if (identity == NULL) {
		return errSecItemNotFound;
	}
	*out = identity;
	return errSecSuccess;
}

kc_status kc_identity_check(kc_handle keychain, const uint8_t *der, size_t der_len) {
	SecIdentityRef identity = NULL;
	kc_status status = identity_create(keychain, der, der_len, &identity);
	if (status != errSecSuccess) {
		return status;
	}
	CFRelease(identity);
	return errSecSuccess;
}

// prefer_for sets the preference for one use.
static kc_status prefer_for(SecIdentityRef identity, CFStringRef address, CFTypeRef use) {
	CFArrayRef uses = kc_single_create(use);
	if (uses == NULL) {
		return errSecAllocate;
	}
	kc_status status = SecIdentitySetPreferred(identity, address, uses);
	CFRelease(uses);
	return status;
}

// prefer_signing clears first: a look-up takes the exact use before any use,
// and setting "any use" writes over the first item of that name whatever its
// use, so that an old one for signing would win (SecIdentity.cpp).
static kc_status prefer_signing(SecIdentityRef identity, CFStringRef address) {
	kc_status status = SecIdentitySetPreferred(NULL, address, NULL);
	if (status != errSecSuccess && status != errSecItemNotFound) {
		return status;
	}
	status = SecIdentitySetPreferred(identity, address, NULL);
	if (status != errSecSuccess) {
		return status;
	}
	return prefer_for(identity, address, kSecAttrCanSign);
}

kc_status kc_identity_prefer(kc_handle keychain, const uint8_t *der, size_t der_len, const char *address, int32_t use) {
	CFStringRef name = kc_text_create(address);
	if (name == NULL) {
		return errSecParam;
	}
	SecIdentityRef identity = NULL;
	kc_status status = identity_create(keychain, der, der_len, &identity);
	if (status == errSecSuccess) {
		status = use == KC_FOR_SIGNING ? prefer_signing(identity, name) : prefer_for(identity, name, kSecAttrCanDecrypt);
	}
	kc_drop(identity);
	CFRelease(name);
	return status;
}

kc_status kc_identity_preferred(const char *address, int32_t use, kc_bytes *out) {
	CFStringRef name = kc_text_create(address);
	if (name == NULL) {
		return errSecParam;
	}
	CFArrayRef uses = kc_single_create(use == KC_FOR_SIGNING ? kSecAttrCanSign : kSecAttrCanDecrypt);
	if (uses == NULL) {
		CFRelease(name);
		return errSecAllocate;
	}
	SecIdentityRef identity = SecIdentityCopyPreferred(name, uses, NULL);
	CFRelease(uses);
	CFRelease(name);
	if (identity == NULL) {
		return errSecItemNotFound;
	}
	SecCertificateRef certificate = NULL;
	kc_status status = SecIdentityCopyCertificate(identity, &certificate);
	CFRelease(identity);
	if (status != errSecSuccess) {
		return status;
	}
	if (certificate == NULL) {
		return errSecDecode; // that is how it tells of one that it cannot read (SecIdentity.cpp)
	}
	status = kc_hand_out(SecCertificateCopyData(certificate), NULL, out);
	CFRelease(certificate);
	return status;
}

// More than one item may bear the name: for signing, for decrypting, for any use.
enum { KC_MOST_PREFERENCES = 8 };

kc_status kc_identity_unprefer(const char *address) {
	CFStringRef name = kc_text_create(address);
	if (name == NULL) {
		return errSecParam;
	}
	kc_status status = errSecSuccess;
	for (int i = 0; status == errSecSuccess && i < KC_MOST_PREFERENCES; i++) {
		SecIdentityRef identity = SecIdentityCopyPreferred(name, NULL, NULL);
		if (identity == NULL && i > 0) {
			break;
		}
		kc_drop(identity);
		status = SecIdentitySetPreferred(NULL, name, NULL);
	}
	CFRelease(name);
	return status == errSecItemNotFound ? errSecSuccess : status;
}
