// The C border of package security: one function for each operation on the
// file-based keychain, plain C types only, so that the Go side can be compiled
// without Apple's headers.
//
// Ownership has one rule. A function releases, on every path, whatever it
// created, copied or retained, except what it hands out through a parameter
// named out or *_out: that belongs to the caller, who gives a kc_handle back
// by kc_release and the data of a kc_bytes by free. After a status other
// than 0 nothing was handed out. Arguments are borrowed for the call.

#ifndef SMIME_KEYCHAIN_H
#define SMIME_KEYCHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// An OSStatus (SecBase.h); 0 is success.
typedef int32_t kc_status;

// A retained reference of Core Foundation; 0 is none. An integer, because the
// garbage collector of Go must not take it for a pointer.
typedef uintptr_t kc_handle;

// Bytes from malloc; data is NULL if len is 0.
typedef struct {
	uint8_t *data;
	size_t len;
} kc_bytes;

void kc_release(kc_handle handle);

// Says whether the system may ask the person, in this whole process
// (SecKeychain.h). When it may not, a question becomes
// errSecInteractionNotAllowed.
kc_status kc_allow_questions(bool allowed);

// The user's default keychain, normally login.keychain-db.
kc_status kc_keychain_default(kc_handle *out);
// The keychain in that file.
kc_status kc_keychain_open(const char *path, kc_handle *out);
// errSecSuccess only if the keychain is there; tells whether it is unlocked.
kc_status kc_keychain_unlocked(kc_handle keychain, bool *unlocked_out);

// The programs that may use a key: this one, and those that are added.
kc_status kc_programs_new(kc_handle *out);
kc_status kc_programs_add(kc_handle programs, const char *path);

// The kinds of keys.
enum { KC_RSA = 1, KC_EC = 2 };

// Makes a pair in the keychain, its private part not extractable and for the
// programs only. name is what people see, tag is what we find it by.
kc_status kc_key_make(kc_handle keychain, kc_handle programs, int32_t kind, int32_t bits,
	const char *name, const uint8_t *tag, size_t tag_len, kc_handle *out);
// Tells whether the key could be taken out of the keychain; true also if the
// system does not say. Only for keys of ours: of an extractable key the
// system makes a copy to tell (SecCDSAKeyCopyAttributeDictionary).
kc_status kc_key_extractable(kc_handle key, bool *extractable_out);

// Lists the private keys. tag may be NULL for all of them.
kc_status kc_keys(kc_handle keychain, const uint8_t *tag, size_t tag_len, kc_handle *out);
// Lists the certificates.
kc_status kc_certificates(kc_handle keychain, kc_handle *out);
size_t kc_count(kc_handle list);

// What a list of kc_keys says of one key. The tag, the name (UTF-8) and the
// label, which is the hash of the public key, are empty if it has none.
kc_status kc_keys_describe(kc_handle list, size_t index, kc_bytes *tag_out, kc_bytes *name_out, kc_bytes *label_out);
// The key itself.
kc_status kc_keys_take(kc_handle list, size_t index, kc_handle *out);
// Deletes the one private key and nothing else.
kc_status kc_keys_delete(kc_handle keychain, kc_handle list, size_t index);

// The public key with that label as PKCS #1 (RSA) or as a point (EC).
// errSecItemNotFound if the keychain has none.
kc_status kc_public(kc_handle keychain, const uint8_t *label, size_t label_len, kc_bytes *out);
// Deletes the public keys with that label.
kc_status kc_public_delete(kc_handle keychain, const uint8_t *label, size_t label_len);

// One certificate of a list of kc_certificates, as DER.
kc_status kc_certificates_der(kc_handle list, size_t index, kc_bytes *out);
// Deletes the one certificate, not its key.
kc_status kc_certificates_delete(kc_handle keychain, kc_handle list, size_t index);

// errSecDuplicateItem if it is there already.
kc_status kc_certificate_add(kc_handle keychain, const uint8_t *der, size_t der_len);
// Succeeds only if the system finds the private key of the certificate.
kc_status kc_identity_check(kc_handle keychain, const uint8_t *der, size_t der_len);
// What a certificate is preferred for.
enum { KC_FOR_ENCRYPTION = 0, KC_FOR_SIGNING = 1 };
// Prefers the certificate for mail of that address. Signing takes the place of
// all earlier preferences of the address. This always writes to the default
// keychain (SecIdentity.cpp).
kc_status kc_identity_prefer(kc_handle keychain, const uint8_t *der, size_t der_len, const char *address, int32_t use);

// The certificate that is preferred for mail of that address, for this use or for
// any, as DER. errSecItemNotFound if there is none.
kc_status kc_identity_preferred(const char *address, int32_t use, kc_bytes *out);
// Takes all preferences of that address away.
kc_status kc_identity_unprefer(const char *address);

// The operations of private keys; errSecUnimplemented where the key has them not.
enum {
	KC_SIGN_PKCS1_SHA256 = 1, KC_SIGN_PKCS1_SHA384, KC_SIGN_PKCS1_SHA512,
	KC_SIGN_PSS_SHA256, KC_SIGN_PSS_SHA384, KC_SIGN_PSS_SHA512,
	KC_SIGN_ECDSA_SHA256, KC_SIGN_ECDSA_SHA384, KC_SIGN_ECDSA_SHA512,
	KC_DECRYPT_PKCS1, KC_DECRYPT_OAEP_SHA1, KC_DECRYPT_OAEP_SHA256, KC_DECRYPT_OAEP_SHA384, KC_DECRYPT_OAEP_SHA512,
};
kc_status kc_sign(kc_handle key, int32_t algorithm, const uint8_t *digest, size_t digest_len, kc_bytes *out);
kc_status kc_decrypt(kc_handle key, int32_t algorithm, const uint8_t *text, size_t text_len, kc_bytes *out);
// The raw shared secret with the owner of another point on a curve of that size.
kc_status kc_agree(kc_handle key, int32_t bits, const uint8_t *point, size_t point_len, kc_bytes *out);

#endif
