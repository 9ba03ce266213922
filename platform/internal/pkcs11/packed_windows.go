package pkcs11

import (
	"encoding/binary"
	"unsafe"
)

// Sizes of the interface's types on 64-bit Windows, in octets.
const (
	ulongSize          = 4
	pointerSize        = 8
	attributeSize      = ulongSize + pointerSize + ulongSize
	initializeArgsSize = 4*pointerSize + ulongSize + 2*pointerSize
	slotInfoSize       = 64 + 32 + ulongSize + 2 + 2
	tokenInfoSize      = 32 + 32 + 16 + 16 + 11*ulongSize + 2 + 2 + 16
	functionListSize   = 2 + functionCount*pointerSize
)

// unavailable is CK_UNAVAILABLE_INFORMATION, (CK_ULONG)-1.
const unavailable = 0xFFFFFFFF

func appendUlong(b []byte, n uint) []byte { return binary.LittleEndian.AppendUint32(b, uint32(n)) }

func appendPointer(b []byte, p uint64) []byte { return binary.LittleEndian.AppendUint64(b, p) }

func ulong(b []byte) uint { return uint(binary.LittleEndian.Uint32(b)) }

func ulongs(b []byte, count uint) []uint {
	count = min(count, uint(len(b)/ulongSize))
	list := make([]uint, count)
	for i := range list {
		list[i] = ulong(b[i*ulongSize:])
	}
	return list
}

// address is where b stays until m is freed; 0 for an empty one.
func (m *memory) address(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	m.pinner.Pin(&b[0])
	return uint64(uintptr(unsafe.Pointer(&b[0])))
}

// pointer is the address as an argument.
func (m *memory) pointer(b []byte) uintptr { return uintptr(m.address(b)) }

// text is the address of a text with a zero behind it, also of an empty one: to
// some functions no address means something else.
func (m *memory) text(s string) uint64 { return m.address(append([]byte(s), 0)) }

// template is the address of a packed array of CK_ATTRIBUTE.
func (m *memory) template(list []*attr) uintptr { return m.pointer(packTemplate(m, list)) }

func packTemplate(m *memory, list []*attr) []byte {
	packed := make([]byte, 0, attributeSize*len(list))
	for _, a := range list {
		packed = appendUlong(packed, a.Type)
		packed = appendPointer(packed, m.address(a.Value))
		packed = appendUlong(packed, uint(len(a.Value)))
	}
	return packed
}

// attributeLength reads ulValueLen of the i-th attribute.
func attributeLength(packed []byte, i int) uint {
	return ulong(packed[i*attributeSize+ulongSize+pointerSize:])
}

// mechanism is the address of a packed CK_MECHANISM.
func (m *memory) mechanism(of *mechanism) uintptr {
	var params []byte
	if of.params != nil {
		params = of.params(m)
	}
	packed := appendUlong(nil, of.kind)
	packed = appendPointer(packed, m.address(params))
	return m.pointer(appendUlong(packed, uint(len(params))))
}

// newAttribute knows the kinds of values that this package gives.
func newAttribute(kind uint, value any) *attr {
	a := &attr{Type: kind}
	switch v := value.(type) {
	case bool:
		a.Value = []byte{0}
		if v {
			a.Value[0] = 1
		}
	case int:
		a.Value = appendUlong(nil, uint(v))
	case uint:
		a.Value = appendUlong(nil, v)
	case string:
		a.Value = []byte(v)
	case []byte:
		a.Value = v
	}
	return a
}

func newMechanism(kind uint, params parameters) *mechanism { return &mechanism{kind, params} }

// newPSSParams is CK_RSA_PKCS_PSS_PARAMS.
func newPSSParams(hash, mgf, salt uint) parameters {
	return func(*memory) []byte { return appendUlong(appendUlong(appendUlong(nil, hash), mgf), salt) }
}

// newOAEPParams is CK_RSA_PKCS_OAEP_PARAMS.
func newOAEPParams(hash, mgf, source uint, label []byte) parameters {
	return func(m *memory) []byte {
		packed := appendUlong(appendUlong(appendUlong(nil, hash), mgf), source)
		return appendUlong(appendPointer(packed, m.address(label)), uint(len(label)))
	}
}

// newECDH1Params is CK_ECDH1_DERIVE_PARAMS.
func newECDH1Params(kdf uint, shared, public []byte) parameters {
	return func(m *memory) []byte {
		packed := appendUlong(appendUlong(nil, kdf), uint(len(shared)))
		packed = appendUlong(appendPointer(packed, m.address(shared)), uint(len(public)))
		return appendPointer(packed, m.address(public))
	}
}
