// Package security binds what the agent needs of the file-based keychain of
// macOS: keys that cannot be taken out, certificates beside them, identities
// and their preferences (Security.framework). The calls are in C files with
// their own rule of ownership (keychain.h); the Go side over them is small and
// typed. The words that both sides share are in this file, for every system.
package security

import "fmt"

// Status is an OSStatus that a call answered: an error, unless it is 0.
type Status int32

// The statuses that have a meaning of their own here (SecBase.h; those from
// -60005 on are of Authorization.h).
const (
	Unimplemented         Status = -4
	BadParameter          Status = -50
	WritePermission       Status = -61
	UserCanceled          Status = -128
	NotAvailable          Status = -25291
	ReadOnly              Status = -25292
	AuthFailed            Status = -25293
	NoSuchKeychain        Status = -25294
	DuplicateItem         Status = -25299
	ItemNotFound          Status = -25300
	NoDefaultKeychain     Status = -25307
	InteractionNotAllowed Status = -25308
	InteractionRequired   Status = -25315
	InDarkWake            Status = -25320
	NotSigner             Status = -26267
	Undecodable           Status = -26275
	MissingEntitlement    Status = -34018
	InternalComponent     Status = -2070

	AuthorizationDenied                Status = -60005
	AuthorizationCanceled              Status = -60006
	AuthorizationInteractionNotAllowed Status = -60007
	InsufficientClientID               Status = -67586
	InvalidACL                         Status = -67702
)

// names are Apple's, so that a search for them leads somewhere.
var names = map[Status]string{
	Unimplemented: "errSecUnimplemented", BadParameter: "errSecParam", UserCanceled: "errSecUserCanceled",
	NotAvailable: "errSecNotAvailable", AuthFailed: "errSecAuthFailed", NoSuchKeychain: "errSecNoSuchKeychain",
	DuplicateItem: "errSecDuplicateItem", ItemNotFound: "errSecItemNotFound", NoDefaultKeychain: "errSecNoDefaultKeychain",
	InteractionNotAllowed: "errSecInteractionNotAllowed", NotSigner: "errSecNotSigner", Undecodable: "errSecDecode",
	MissingEntitlement: "errSecMissingEntitlement", InternalComponent: "errSecInternalComponent",
	WritePermission: "errSecWrPerm", ReadOnly: "errSecReadOnly", InteractionRequired: "errSecInteractionRequired", InDarkWake: "errSecInDarkWake",
	AuthorizationDenied: "errAuthorizationDenied", AuthorizationCanceled: "errAuthorizationCanceled",
	AuthorizationInteractionNotAllowed: "errAuthorizationInteractionNotAllowed",
	InsufficientClientID:               "errSecInsufficientClientID", InvalidACL: "errSecInvalidACL",
}

func (s Status) Error() string {
	if name, ok := names[s]; ok {
		return fmt.Sprintf("keychain: %s (%d)", name, int32(s))
	}
	return fmt.Sprintf("keychain: status %d", int32(s))
}

// Spec is a key to make.
type Spec struct {
	// Name is what people see of the key in the system's questions and in Keychain
	// Access.
	Name string
	// Tag is by what the key is found.
	Tag string
	// EC keys are on the NIST curve of that size, others are RSA.
	EC   bool
	Bits int
	// Programs are paths of other programs that may use the key.
	Programs []string
}

// Item is a private key of the keychain as its record describes it. A key whose
// making was interrupted may lack any of this.
type Item struct {
	Tag, Name string
	// Label is the SHA-1 of the public key: of the PKCS #1 form of an RSA key, of
	// the point of an EC key.
	Label []byte
}

// Algorithm is an operation of a private key; the numbers are those of keychain.h.
type Algorithm int32

// The operations. Signing takes a digest.
const (
	SignPKCS1SHA256 Algorithm = iota + 1
	SignPKCS1SHA384
	SignPKCS1SHA512
	SignPSSSHA256
	SignPSSSHA384
	SignPSSSHA512
	SignECDSASHA256
	SignECDSASHA384
	SignECDSASHA512
	DecryptPKCS1
	DecryptOAEPSHA1
	DecryptOAEPSHA256
	DecryptOAEPSHA384
	DecryptOAEPSHA512
)

// Use is what a certificate is preferred for; the numbers are those of keychain.h.
type Use int32

// The uses.
const (
	ForEncryption Use = iota
	ForSigning
)
