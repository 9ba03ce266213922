package lint

import (
	"bytes"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ofSubject are lints that only look for odd letters and spaces in the subject. In
// a plain one there are none; any other is theirs to judge.
func ofSubject() map[string]bool {
	return map[string]bool{
		"e_subject_printable_string_badalpha": true, "e_subject_dn_not_printable_characters": true,
		"e_subject_dn_country_not_printable_string": true, "e_utf8_latin1_mixup": true,
		"w_subject_dn_leading_whitespace": true, "w_subject_dn_trailing_whitespace": true,
		"e_subj_contains_html_entities": true,
	}
}

// plain says that a name has one attribute an RDN, each a PrintableString, or a
// UTF8String and no country, of letters of ASCII, digits, single spaces and the most usual
// marks, and no space at either end.
func plain(name []byte) bool {
	input := cryptobyte.String(name)
	var sequence, set, attribute, oid, value cryptobyte.String
	if !input.ReadASN1(&sequence, cbasn1.SEQUENCE) || !input.Empty() {
		return false
	}
	for !sequence.Empty() {
		var tag cbasn1.Tag
		if !sequence.ReadASN1(&set, cbasn1.SET) || !set.ReadASN1(&attribute, cbasn1.SEQUENCE) || !set.Empty() ||
			!attribute.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) || !attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
			return false
		}
		country := bytes.Equal(oid, []byte{0x55, 0x04, 0x06})
		if tag != cbasn1.PrintableString && (tag != cbasn1.UTF8String || country) || !plainText(value, tag == cbasn1.UTF8String) {
			return false
		}
	}
	return true
}

func plainText(text []byte, wide bool) bool {
	if len(text) == 0 || text[0] == ' ' || text[len(text)-1] == ' ' {
		return false
	}
	for _, c := range text {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == ' ', c == '-', c == '.', c == ',', c == '+':
		case wide && (c == '@' || c == '_'):
		default:
			return false
		}
	}
	return true
}
