package outlook

import (
	"bytes"
	"slices"
)

// An algorithm as it stands in SMIMECapabilities: a SEQUENCE with nothing but an
// object identifier of 2.16.840.1.101.3.4, whose last two numbers differ.
func capability(last ...byte) []byte {
	return append([]byte{0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04}, last...)
}

// The algorithms by the words of policy, best first.
var (
	ciphers = []algorithm{{"aes-256", capability(1, 42)}, {"aes-192", capability(1, 22)}, {"aes-128", capability(1, 2)}}
	hashes  = []algorithm{{"sha-256", capability(2, 1)}, {"sha-384", capability(2, 2)}, {"sha-512", capability(2, 3)}}
)

type algorithm struct {
	name string
	der  []byte
}

// Capabilities lists all that we and Outlook can do, the named cipher and hash
// first; empty names take AES-256 and SHA-256.
func Capabilities(cipher, hash string) []byte {
	var list []byte
	for _, a := range slices.Concat(first(ciphers, cipher), first(hashes, hash)) {
		list = append(list, a.der...)
	}
	return append([]byte{0x30, byte(len(list))}, list...)
}

func first(all []algorithm, name string) []algorithm {
	i := slices.IndexFunc(all, func(a algorithm) bool { return a.name == name })
	if i <= 0 {
		return all
	}
	return slices.Concat(all[i:i+1], all[:i], all[i+1:])
}

// preferred is the first algorithm of a kind in SMIMECapabilities; empty if none
// of ours is there.
func preferred(capabilities []byte, kind []algorithm) string {
	best, at := "", len(capabilities)
	for _, a := range kind {
		if i := bytes.Index(capabilities, a.der); i >= 0 && i < at {
			best, at = a.name, i
		}
	}
	return best
}
