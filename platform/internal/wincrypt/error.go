package wincrypt

import (
	"errors"
	"fmt"
)

// Error is a call that Windows refused.
type Error struct {
	// Call is the procedure's name.
	Call string
	// Code is its SECURITY_STATUS, or the thread's last error for a procedure
	// that answers BOOL. 0 stands for one that failed and gave no reason.
	Code uint32
}

// Error gives the code as Microsoft's tables have it, in hexadecimal.
func (e *Error) Error() string {
	if e.Code == 0 {
		return e.Call + " failed and gave no reason"
	}
	if known, ok := codes[e.Code]; ok {
		return fmt.Sprintf("%s: %s (0x%08x)", e.Call, known.name, e.Code)
	}
	return fmt.Sprintf("%s: 0x%08x", e.Call, e.Code)
}

// Class sorts the codes.
type Class string

// The classes. Whatever has none may go away by itself.
const (
	Missing     Class = "missing"     // no such key, container, certificate or property
	Exists      Class = "exists"      // the name is taken
	Locked      Class = "locked"      // the key wants to ask the person, and was not allowed to
	Denied      Class = "denied"      // an access list, the person, or the key's own policy refuses
	Unsupported Class = "unsupported" // the provider cannot do it
	Absent      Class = "absent"      // the device is not there or not ready
	Unreadable  Class = "unreadable"  // the data is not what the key expects
)

// The codes that the code asks for by name (winerror.h).
const (
	codeFileNotFound = 2   // ERROR_FILE_NOT_FOUND
	codeNoMoreFiles  = 18  // ERROR_NO_MORE_FILES
	codeProcNotFound = 127 // ERROR_PROC_NOT_FOUND
	codeMoreData     = 234 // ERROR_MORE_DATA
	codeNoMoreItems  = 259 // ERROR_NO_MORE_ITEMS

	codeBadLength     = 0x80090004 // NTE_BAD_LEN
	codeNoKey         = 0x8009000D // NTE_NO_KEY
	codeBadKeyState   = 0x8009000B // NTE_BAD_KEY_STATE
	codeNoMoreKeys    = 0x8009002A // NTE_NO_MORE_ITEMS
	codeCryptNotFound = 0x80092004 // CRYPT_E_NOT_FOUND
	codeCryptExists   = 0x80092005 // CRYPT_E_EXISTS
)

// codes is the one table from codes to names and classes (winerror.h).
var codes = map[uint32]struct {
	name  string
	class Class
}{
	codeFileNotFound: {"ERROR_FILE_NOT_FOUND", ""},
	5:                {"ERROR_ACCESS_DENIED", Denied},
	50:               {"ERROR_NOT_SUPPORTED", Unsupported},
	87:               {"ERROR_INVALID_PARAMETER", ""},
	126:              {"ERROR_MOD_NOT_FOUND", Unsupported},
	127:              {"ERROR_PROC_NOT_FOUND", Unsupported},
	1223:             {"ERROR_CANCELLED", Denied},

	0x80090003:      {"NTE_BAD_KEY", ""},
	codeBadLength:   {"NTE_BAD_LEN", Unreadable},
	0x80090005:      {"NTE_BAD_DATA", Unreadable},
	0x80090008:      {"NTE_BAD_ALGID", Unsupported},
	0x80090009:      {"NTE_BAD_FLAGS", Unsupported},
	0x8009000A:      {"NTE_BAD_TYPE", Unsupported},
	codeBadKeyState: {"NTE_BAD_KEY_STATE", Denied},
	codeNoKey:       {"NTE_NO_KEY", Missing},
	0x8009000F:      {"NTE_EXISTS", Exists},
	0x80090010:      {"NTE_PERM", Denied},
	0x80090011:      {"NTE_NOT_FOUND", Missing},
	0x80090013:      {"NTE_BAD_PROVIDER", Unsupported},
	0x80090016:      {"NTE_BAD_KEYSET", Missing},
	0x80090017:      {"NTE_PROV_TYPE_NOT_DEF", Unsupported},
	0x80090019:      {"NTE_KEYSET_NOT_DEF", Unsupported},
	0x8009001E:      {"NTE_PROV_DLL_NOT_FOUND", Unsupported},
	0x80090020:      {"NTE_FAIL", ""},
	0x80090022:      {"NTE_SILENT_CONTEXT", Locked},
	0x80090024:      {"NTE_TEMPORARY_PROFILE", Denied},
	0x80090027:      {"NTE_INVALID_PARAMETER", ""},
	0x80090028:      {"NTE_BUFFER_TOO_SMALL", ""},
	0x80090029:      {"NTE_NOT_SUPPORTED", Unsupported},
	codeNoMoreKeys:  {"NTE_NO_MORE_ITEMS", ""},
	0x8009002C:      {"NTE_DECRYPTION_FAILURE", Unreadable},
	0x8009002E:      {"NTE_UI_REQUIRED", Locked},
	0x80090030:      {"NTE_DEVICE_NOT_READY", Absent},
	0x80090035:      {"NTE_DEVICE_NOT_FOUND", Absent},
	0x80090036:      {"NTE_USER_CANCELLED", Denied},
	0x8010006E:      {"SCARD_W_CANCELLED_BY_USER", Denied},

	0x80091002:        {"CRYPT_E_UNKNOWN_ALGO", Unsupported},
	codeCryptNotFound: {"CRYPT_E_NOT_FOUND", Missing},
	codeCryptExists:   {"CRYPT_E_EXISTS", Exists},
	0x8009200B:        {"CRYPT_E_NO_KEY_PROPERTY", Missing},
	0x80093100:        {"CRYPT_E_ASN1_ERROR", Unreadable},
}

// ClassOf finds a code in err's chain and gives its class, or "".
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return codes[e.Code].class
	}
	return ""
}

func hasCode(err error, code uint32) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}
