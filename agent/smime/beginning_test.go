package smime

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestRecipientsAt cuts messages at every octet: what is told of a beginning is
// what is true of the whole, and a beginning that is too short says so.
func TestRecipientsAt(t *testing.T) {
	ca := newAuthority(t, "Corp")
	for _, k := range keyKinds(t) {
		leaf := ca.leaf(t, k.key.Public(), nil)
		for _, o := range []EncryptOptions{{}, {Authenticated: true}} {
			message := encrypted(t, leaf, o)
			want, err := Recipients(message)
			if err != nil {
				t.Fatal(err)
			}
			enough := 0
			for n := range message {
				got, err := RecipientsAt(message[:n])
				switch {
				case err == nil && enough == 0:
					enough = n
				case err == nil || enough == 0 && errors.Is(err, ErrCutOff):
				default:
					t.Fatalf("%s: %d octets: %v", k.name, n, err)
				}
				if err == nil && !reflect.DeepEqual(got, want) {
					t.Fatalf("%s: %d octets give %+v, want %+v", k.name, n, got, want)
				}
			}
			if enough == 0 || enough > len(message)-len(body) {
				t.Errorf("%s: %d of %d octets were enough", k.name, enough, len(message))
			}
		}
	}
}

func TestRecipientsAtRefuses(t *testing.T) {
	ca := newAuthority(t, "Corp")
	k := keyKinds(t)[2]
	signed, err := Sign(body, ca.leaf(t, k.key.Public(), nil), ca.chain(), k.key, SignOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RecipientsAt(signed[:40]); !errors.Is(err, ErrUnsupported) {
		t.Errorf("signed data: %v", err)
	}
	deep := bytes.Repeat([]byte{0x31, 0x80}, 10000)
	envelope := append([]byte("\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03\xa0\x80\x30\x80\x02\x01\x00"), deep...)
	for _, in := range [][]byte{[]byte("no CMS at all"), envelope, []byte("0\x89\x01\x01\x01\x01\x01\x01\x01\x01\x01")} {
		if _, err := RecipientsAt(in); !errors.Is(err, ErrMalformed) || errors.Is(err, ErrCutOff) {
			t.Errorf("%.20x: %v", in, err)
		}
	}
}

// TestOpenSSLStreams reads what openssl streams: BER with indefinite lengths,
// whose end is far away.
func TestOpenSSLStreams(t *testing.T) {
	perKind(t, func(t *testing.T, _ keyKind, j judge) {
		j.write(t, "body", []byte(strings.Repeat("much of it\r\n", 100000)))
		for _, how := range [][]string{nil, {"-keyid"}} {
			args := append([]string{"-encrypt", "-stream", "-indef", "-aes-256-cbc", "-outform", "DER", "-in", "body", "-out", "streamed"}, how...)
			j.must(t, append(args, "leaf.pem")...)
			message := j.read(t, "streamed")
			got, err := RecipientsAt(message[:2000])
			if err != nil || len(got) != 1 || !got[0].Matches(j.leaf) {
				t.Errorf("%v: %+v, %v", how, got, err)
			}
			if (len(how) > 0) != (len(got[0].KeyID) > 0) {
				t.Errorf("%v: named as %+v", how, got[0])
			}
		}
	})
}

func FuzzRecipientsAt(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		got, err := RecipientsAt(in)
		if !bytes.Equal(in, before) {
			t.Fatal("the input was changed")
		}
		if len(got) > maxRecipients || err != nil && got != nil {
			t.Fatalf("%d recipients, %v", len(got), err)
		}
		if want, whole := Recipients(in); whole == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("of the whole %+v, of its beginning %+v, %v", want, got, err)
		}
	})
}
