package pkcs11

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"

	p11 "github.com/miekg/pkcs11"
)

// The binding of a program built without cgo: the functions that this package
// uses, called through the module's own table. Windows has its own layout (PKCS
// #11 v2.40 §2.1, and nss/lib/util/pkcs11p.h): CK_ULONG is 32 bits, and
// structures are packed to single octets. binding_cgo.go has the same names. Of
// the package above only the constants are here, which need no cgo.

// Code is a function's answer (CK_RV) that is not CKR_OK.
type Code uint

func (c Code) Error() string { return fmt.Sprintf("PKCS #11 code 0x%X", uint(c)) }

type (
	objectHandle  uint
	sessionHandle uint
)

// attr is CK_ATTRIBUTE.
type attr struct {
	Type  uint
	Value []byte
}

// mechanism is CK_MECHANISM; params packs what it takes, or is nil.
type mechanism struct {
	kind   uint
	params parameters
}

// parameters packs a structure into memory that outlasts the call.
type parameters func(*memory) []byte

type slotInfo struct{ Flags uint }

type tokenInfo struct {
	Label, ManufacturerID, Model string
	Flags                        uint
}

type mechanismInfo struct{ MinKeySize, MaxKeySize uint }

// binding is a loaded module by the addresses of its functions, in the order of
// CK_FUNCTION_LIST.
type binding struct {
	functions [functionCount]uintptr
}

// The functions' places in CK_FUNCTION_LIST (pkcs11f.h).
const (
	fnInitialize        = 0
	fnFinalize          = 1
	fnGetSlotList       = 4
	fnGetSlotInfo       = 5
	fnGetTokenInfo      = 6
	fnGetMechanismInfo  = 8
	fnInitPIN           = 10
	fnOpenSession       = 12
	fnCloseSession      = 13
	fnLogin             = 18
	fnLogout            = 19
	fnCreateObject      = 20
	fnCopyObject        = 21
	fnDestroyObject     = 22
	fnGetAttributeValue = 24
	fnSetAttributeValue = 25
	fnFindObjectsInit   = 26
	fnFindObjects       = 27
	fnFindObjectsFinal  = 28
	fnDecryptInit       = 33
	fnDecrypt           = 34
	fnSignInit          = 42
	fnSign              = 43
	fnGenerateKeyPair   = 59
	fnDeriveKey         = 62
	functionCount       = 68
)

// call calls a function. Its arguments are numbers, or addresses from a [memory]
// that is freed later.
func (b *binding) call(function int, args ...uintptr) error {
	if b.functions[function] == 0 {
		return Code(p11.CKR_FUNCTION_NOT_SUPPORTED)
	}
	r, _, _ := syscall.SyscallN(b.functions[function], args...)
	if code := Code(uint32(r)); code != 0 { //nolint:gosec // CK_RV has 32 bits here
		return code
	}
	return nil
}

// initialize calls C_Initialize. NSS's CK_C_INITIALIZE_ARGS has its parameters
// where the standard has pReserved, and pReserved behind them; both are here.
func initialize(b *binding, text string) error {
	var m memory
	defer m.free()
	args := make([]byte, 4*pointerSize, initializeArgsSize) // no functions of ours for mutexes
	args = appendUlong(args, p11.CKF_OS_LOCKING_OK)
	if text == "" {
		args = appendPointer(args, 0)
	} else {
		args = appendPointer(args, m.text(text))
	}
	args = appendPointer(args, 0)
	return b.call(fnInitialize, m.pointer(args))
}

// longest is far more octets than a module has for one answer. What claims more
// would end the process for want of memory.
const longest = 16 << 20

// room is memory for an answer of which the module itself says the length.
func room(length uint) ([]byte, error) {
	if length > longest {
		return nil, Code(p11.CKR_HOST_MEMORY)
	}
	return make([]byte, length), nil
}

func (b *binding) Finalize() error { return b.call(fnFinalize, 0) }

func (b *binding) GetSlotList(present bool) ([]uint, error) {
	var m memory
	defer m.free()
	var flag uintptr
	if present {
		flag = 1
	}
	count := make([]byte, ulongSize)
	if err := b.call(fnGetSlotList, flag, 0, m.pointer(count)); err != nil {
		return nil, err
	}
	list, err := room(ulongSize * ulong(count))
	if err != nil {
		return nil, err
	}
	if err := b.call(fnGetSlotList, flag, m.pointer(list), m.pointer(count)); err != nil {
		return nil, err
	}
	return ulongs(list, ulong(count)), nil
}

func (b *binding) GetSlotInfo(slot uint) (slotInfo, error) {
	var m memory
	defer m.free()
	info := make([]byte, slotInfoSize)
	err := b.call(fnGetSlotInfo, uintptr(slot), m.pointer(info))
	return slotInfo{Flags: ulong(info[64+32:])}, err
}

func (b *binding) GetTokenInfo(slot uint) (tokenInfo, error) {
	var m memory
	defer m.free()
	info := make([]byte, tokenInfoSize)
	err := b.call(fnGetTokenInfo, uintptr(slot), m.pointer(info))
	padded := func(b []byte) string { return strings.TrimRight(string(b), " ") }
	return tokenInfo{Label: padded(info[:32]), ManufacturerID: padded(info[32:64]), Model: padded(info[64:80]),
		Flags: ulong(info[32+32+16+16:])}, err
}

// GetMechanismInfo takes a list of one, as the other binding does.
func (b *binding) GetMechanismInfo(slot uint, list []*mechanism) (mechanismInfo, error) {
	var m memory
	defer m.free()
	info := make([]byte, 3*ulongSize)
	err := b.call(fnGetMechanismInfo, uintptr(slot), uintptr(list[0].kind), m.pointer(info))
	return mechanismInfo{MinKeySize: ulong(info), MaxKeySize: ulong(info[ulongSize:])}, err
}

func (b *binding) OpenSession(slot, flags uint) (sessionHandle, error) {
	var m memory
	defer m.free()
	h := make([]byte, ulongSize)
	err := b.call(fnOpenSession, uintptr(slot), uintptr(flags), 0, 0, m.pointer(h))
	return sessionHandle(ulong(h)), err
}

func (b *binding) CloseSession(s sessionHandle) error { return b.call(fnCloseSession, uintptr(s)) }

func (b *binding) Login(s sessionHandle, user uint, pin string) error {
	var m memory
	defer m.free()
	return b.call(fnLogin, uintptr(s), uintptr(user), uintptr(m.text(pin)), uintptr(len(pin)))
}

func (b *binding) Logout(s sessionHandle) error { return b.call(fnLogout, uintptr(s)) }

func (b *binding) InitPIN(s sessionHandle, pin string) error {
	var m memory
	defer m.free()
	return b.call(fnInitPIN, uintptr(s), uintptr(m.text(pin)), uintptr(len(pin)))
}

func (b *binding) CreateObject(s sessionHandle, template []*attr) (objectHandle, error) {
	var m memory
	defer m.free()
	h := make([]byte, ulongSize)
	err := b.call(fnCreateObject, uintptr(s), m.template(template), uintptr(len(template)), m.pointer(h))
	return objectHandle(ulong(h)), err
}

func (b *binding) CopyObject(s sessionHandle, o objectHandle, template []*attr) (objectHandle, error) {
	var m memory
	defer m.free()
	h := make([]byte, ulongSize)
	err := b.call(fnCopyObject, uintptr(s), uintptr(o), m.template(template), uintptr(len(template)), m.pointer(h))
	return objectHandle(ulong(h)), err
}

func (b *binding) DestroyObject(s sessionHandle, o objectHandle) error {
	return b.call(fnDestroyObject, uintptr(s), uintptr(o))
}

// GetAttributeValue asks for the lengths first, then for the values; what the
// module says is unavailable has none.
func (b *binding) GetAttributeValue(s sessionHandle, o objectHandle, template []*attr) ([]*attr, error) {
	var m memory
	defer m.free()
	bare := make([]*attr, len(template))
	for i, a := range template {
		bare[i] = &attr{Type: a.Type}
	}
	asked := packTemplate(&m, bare)
	if err := b.call(fnGetAttributeValue, uintptr(s), uintptr(o), m.pointer(asked), uintptr(len(template))); err != nil {
		return nil, err
	}
	for i, a := range bare {
		n := attributeLength(asked, i)
		if n == unavailable {
			continue
		}
		var err error
		if a.Value, err = room(n); err != nil {
			return nil, err
		}
	}
	values := packTemplate(&m, bare)
	if err := b.call(fnGetAttributeValue, uintptr(s), uintptr(o), m.pointer(values), uintptr(len(template))); err != nil {
		return nil, err
	}
	for i, a := range bare {
		n := attributeLength(values, i)
		if n > uint(len(a.Value)) { // it has changed meanwhile: what is here is none
			a.Value = nil
			continue
		}
		a.Value = a.Value[:n]
	}
	return bare, nil
}

func (b *binding) SetAttributeValue(s sessionHandle, o objectHandle, template []*attr) error {
	var m memory
	defer m.free()
	return b.call(fnSetAttributeValue, uintptr(s), uintptr(o), m.template(template), uintptr(len(template)))
}

func (b *binding) FindObjectsInit(s sessionHandle, template []*attr) error {
	var m memory
	defer m.free()
	return b.call(fnFindObjectsInit, uintptr(s), m.template(template), uintptr(len(template)))
}

// FindObjects gives at most that many; the bool is the other binding's, and
// means nothing there either.
func (b *binding) FindObjects(s sessionHandle, most int) ([]objectHandle, bool, error) {
	var m memory
	defer m.free()
	list, count := make([]byte, ulongSize*most), make([]byte, ulongSize)
	if err := b.call(fnFindObjects, uintptr(s), m.pointer(list), uintptr(most), m.pointer(count)); err != nil {
		return nil, false, err
	}
	var found []objectHandle
	for _, h := range ulongs(list, ulong(count)) {
		found = append(found, objectHandle(h))
	}
	return found, false, nil
}

func (b *binding) FindObjectsFinal(s sessionHandle) error {
	return b.call(fnFindObjectsFinal, uintptr(s))
}

func (b *binding) SignInit(s sessionHandle, list []*mechanism, key objectHandle) error {
	return b.begin(fnSignInit, s, list, key)
}

func (b *binding) Sign(s sessionHandle, data []byte) ([]byte, error) {
	return b.finish(fnSign, s, data)
}

func (b *binding) DecryptInit(s sessionHandle, list []*mechanism, key objectHandle) error {
	return b.begin(fnDecryptInit, s, list, key)
}

func (b *binding) Decrypt(s sessionHandle, data []byte) ([]byte, error) {
	return b.finish(fnDecrypt, s, data)
}

func (b *binding) begin(function int, s sessionHandle, list []*mechanism, key objectHandle) error {
	var m memory
	defer m.free()
	return b.call(function, uintptr(s), m.mechanism(list[0]), uintptr(key))
}

// finish ends an operation of one part: once for the length, once for the
// result, which may be shorter (PKCS #11 v2.40 §5.2).
func (b *binding) finish(function int, s sessionHandle, data []byte) ([]byte, error) {
	var m memory
	defer m.free()
	length := make([]byte, ulongSize)
	in := uintptr(m.text(string(data)))
	if err := b.call(function, uintptr(s), in, uintptr(len(data)), 0, m.pointer(length)); err != nil {
		return nil, err
	}
	result, err := room(ulong(length))
	if err != nil {
		return nil, err
	}
	if err := b.call(function, uintptr(s), in, uintptr(len(data)), m.pointer(result), m.pointer(length)); err != nil {
		return nil, err
	}
	return result[:min(ulong(length), uint(len(result)))], nil
}

func (b *binding) GenerateKeyPair(s sessionHandle, list []*mechanism, public, private []*attr) (objectHandle, objectHandle, error) {
	var m memory
	defer m.free()
	first, second := make([]byte, ulongSize), make([]byte, ulongSize)
	err := b.call(fnGenerateKeyPair, uintptr(s), m.mechanism(list[0]), m.template(public), uintptr(len(public)),
		m.template(private), uintptr(len(private)), m.pointer(first), m.pointer(second))
	return objectHandle(ulong(first)), objectHandle(ulong(second)), err
}

func (b *binding) DeriveKey(s sessionHandle, list []*mechanism, base objectHandle, template []*attr) (objectHandle, error) {
	var m memory
	defer m.free()
	h := make([]byte, ulongSize)
	err := b.call(fnDeriveKey, uintptr(s), m.mechanism(list[0]), uintptr(base), m.template(template), uintptr(len(template)), m.pointer(h))
	return objectHandle(ulong(h)), err
}

// memory keeps what a module reads and writes in its place until it is freed:
// the garbage collector does not see the addresses in packed structures.
type memory struct{ pinner runtime.Pinner }

func (m *memory) free() { m.pinner.Unpin() }
