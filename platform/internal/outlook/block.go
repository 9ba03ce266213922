package outlook

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf16"

	"golang.org/x/text/encoding/charmap"
)

// The settings of a block, by tag (mfcmapi, extraPropTags.h; MS-OXOABK §2.2.4.36).
const (
	tagVersion     = 0x0001
	tagAsymmetric  = 0x0002 // SMIMECapabilities
	tagEncoding    = 0x0006
	tagSignHash    = 0x0009
	tagNameANSI    = 0x000b
	tagDefaults    = 0x0020
	tagEncryptHash = 0x0022
	tagNameUTF16   = 0x0051
)

// The marks of a block in its defaults.
const (
	DefaultForFormat uint32 = 1
	GlobalDefault    uint32 = 2
	SendCertificate  uint32 = 4
)

// Octets of a setting's header and of a thumbprint.
const (
	settingHeader = 4
	thumbprint    = 20
)

// Block is one named security setting. It keeps the octets that it was read from.
type Block struct {
	raw      []byte
	settings map[uint16][]byte
}

// parseBlock reads the settings: tag and length (its own header included) as
// 16-bit numbers, then the data. A length of 0 ends the block.
func parseBlock(raw []byte) (Block, error) {
	b := Block{raw: bytes.Clone(raw), settings: map[uint16][]byte{}}
	for in := b.raw; len(in) > 0; {
		if len(in) < settingHeader {
			return Block{}, fmt.Errorf("%w: a setting is cut off", ErrMalformed)
		}
		tag, length := binary.LittleEndian.Uint16(in), int(binary.LittleEndian.Uint16(in[2:]))
		if length == 0 {
			break
		}
		if length < settingHeader || length > len(in) {
			return Block{}, fmt.Errorf("%w: setting %#04x has length %d", ErrMalformed, tag, length)
		}
		if _, twice := b.settings[tag]; twice {
			return Block{}, fmt.Errorf("%w: setting %#04x is there twice", ErrMalformed, tag)
		}
		b.settings[tag] = in[settingHeader:length]
		in = in[length:]
	}
	return b, b.check()
}

func (b Block) check() error {
	for _, tag := range []uint16{tagSignHash, tagEncryptHash} {
		if hash, ok := b.settings[tag]; ok && len(hash) != thumbprint {
			return fmt.Errorf("%w: a thumbprint of %d octets", ErrMalformed, len(hash))
		}
	}
	for _, tag := range []uint16{tagVersion, tagEncoding, tagDefaults} {
		if number, ok := b.settings[tag]; ok && len(number) != 4 {
			return fmt.Errorf("%w: setting %#04x has %d octets", ErrMalformed, tag, len(number))
		}
	}
	return nil
}

// Name is what people see in the Trust Center.
func (b Block) Name() string {
	if wide, ok := b.settings[tagNameUTF16]; ok {
		units := make([]uint16, 0, len(wide)/2)
		for i := 0; i+1 < len(wide); i += 2 {
			units = append(units, binary.LittleEndian.Uint16(wide[i:]))
		}
		return string(bytes.TrimRight([]byte(string(utf16.Decode(units))), "\x00"))
	}
	narrow, err := charmap.Windows1252.NewDecoder().Bytes(bytes.TrimRight(b.settings[tagNameANSI], "\x00"))
	if err != nil {
		return ""
	}
	return string(narrow)
}

// Defaults are the marks.
func (b Block) Defaults() uint32 {
	if number := b.settings[tagDefaults]; len(number) == 4 {
		return binary.LittleEndian.Uint32(number)
	}
	return 0
}

// SignSHA1 and EncryptSHA1 are the SHA-1 of the certificates; nil for none.
func (b Block) SignSHA1() []byte { return bytes.Clone(b.settings[tagSignHash]) }

// EncryptSHA1 is that of the encryption certificate.
func (b Block) EncryptSHA1() []byte { return bytes.Clone(b.settings[tagEncryptHash]) }

// Capabilities are the DER SMIMECapabilities; the first cipher and the first hash
// are what Outlook uses.
func (b Block) Capabilities() []byte { return bytes.Clone(b.settings[tagAsymmetric]) }

// withDefaults changes the marks where they stand; all else stays, byte for byte.
func (b Block) withDefaults(marks uint32) (Block, error) {
	if b.Defaults() == marks {
		return b, nil
	}
	raw := bytes.Clone(b.raw)
	for at := 0; at+settingHeader <= len(raw); {
		length := int(binary.LittleEndian.Uint16(raw[at+2:]))
		if length == 0 {
			break
		}
		if binary.LittleEndian.Uint16(raw[at:]) == tagDefaults {
			binary.LittleEndian.PutUint32(raw[at+settingHeader:], marks)
		}
		at += length
	}
	return parseBlock(raw)
}

// Settings are what a block of ours says.
type Settings struct {
	Name string
	// Defaults are the marks: 7 for the default, 4 for others.
	Defaults uint32
	// SignSHA1 and EncryptSHA1 are left out if they are nil.
	SignSHA1, EncryptSHA1 []byte
	Capabilities          []byte
}

// New makes a block, in the order in which known writers have the settings.
func New(s Settings) (Block, error) {
	narrow, err := charmap.Windows1252.NewEncoder().Bytes([]byte(s.Name))
	if err != nil { // the wide name counts; this one is for programs of the last century
		narrow = bytes.Map(func(r rune) rune {
			if r > 0x7e {
				return '?'
			}
			return r
		}, []byte(s.Name))
	}
	var wide []byte
	for _, unit := range append(utf16.Encode([]rune(s.Name)), 0) {
		wide = binary.LittleEndian.AppendUint16(wide, unit)
	}
	var raw []byte
	for _, setting := range []struct {
		tag  uint16
		data []byte
	}{
		{tagVersion, number(1)}, {tagEncoding, number(1)}, {tagDefaults, number(s.Defaults)},
		{tagNameUTF16, wide}, {tagNameANSI, append(narrow, 0)},
		{tagSignHash, s.SignSHA1}, {tagEncryptHash, s.EncryptSHA1}, {tagAsymmetric, s.Capabilities},
	} {
		if setting.data == nil {
			continue
		}
		if len(setting.data) > 1<<15 {
			return Block{}, fmt.Errorf("%w: setting %#04x of %d octets", ErrMalformed, setting.tag, len(setting.data))
		}
		raw = binary.LittleEndian.AppendUint16(raw, setting.tag)
		raw = binary.LittleEndian.AppendUint16(raw, uint16(settingHeader+len(setting.data))) //nolint:gosec // bounded above
		raw = append(raw, setting.data...)
	}
	return parseBlock(raw)
}

func number(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
