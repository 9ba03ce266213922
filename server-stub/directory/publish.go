package directory

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
	"github.com/smallstep/pkcs7"
)

// What became of a mailbox in the directory.
const (
	Published = "published"
	Withdrawn = "withdrawn" // nothing of ours is there, and nothing shall be
	NotFound  = "not-found"
	Ambiguous = "ambiguous"
	Failed    = "failed"
)

// Wanted is what the directory is to hold for a mailbox.
type Wanted struct {
	Mailbox string
	// Certificate (DER) is the one to encrypt to, Signed the device's value; either
	// may be empty.
	Certificate, Signed []byte
	// Stale says that a certificate is one of this server's that shall not be
	// there. What it does not know is somebody else's, and stays.
	Stale func(*x509.Certificate) bool
}

// Outcome is what became of it.
type Outcome struct {
	State, DN string
	// Problem is one sentence with what to do.
	Problem string
}

// ErrConnection: the directory cannot be asked at all now.
var ErrConnection = errors.New("the directory does not answer")

// Publish brings the mailbox's entry to what is wanted, and reads it back. An
// error is [ErrConnection]; everything about this entry alone is in the outcome.
func (s *Session) Publish(w Wanted) (Outcome, error) {
	entries, err := s.find(w.Mailbox)
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) || len(entries) > 1:
		return Outcome{State: Ambiguous, Problem: "Several entries have this address; give it to one, or write a narrower filter."}, nil
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
		return Outcome{State: Failed, Problem: "There is no such base in the directory; correct directory.base."}, nil
	case err != nil:
		return refused(err)
	case len(entries) == 0:
		return Outcome{State: NotFound, Problem: "No entry has this address; give it to the person's entry, or correct base and filter."}, nil
	}
	dn := entries[0].DN
	change := s.changes(dn, s.valuesOf(entries[0]), w)
	if len(change.Changes) > 0 {
		if err := s.conn.Modify(change); err != nil {
			o, err := refused(err)
			o.DN = dn
			return o, err
		}
		if o, err := s.readBack(dn, w); err != nil || o.State != "" {
			return o, err
		}
	}
	if len(w.Certificate) == 0 {
		return Outcome{State: Withdrawn, DN: dn}, nil
	}
	return Outcome{State: Published, DN: dn}, nil
}

// refused tells an answer of the directory from a broken connection.
func refused(err error) (Outcome, error) {
	l, ok := errors.AsType[*ldap.Error](err)
	if !ok || l.ResultCode >= ldap.ErrorNetwork || l.ResultCode == ldap.LDAPResultBusy || l.ResultCode == ldap.LDAPResultUnavailable {
		return Outcome{}, fmt.Errorf("%w: %w", ErrConnection, err)
	}
	cure := "See the directory's log."
	switch l.ResultCode {
	case ldap.LDAPResultInsufficientAccessRights:
		cure = "Let the bind DN write userCertificate and userSMIMECertificate."
	case ldap.LDAPResultObjectClassViolation:
		cure = "Give the entry the object class inetOrgPerson."
	case ldap.LDAPResultUndefinedAttributeType:
		cure = "Add the schema of inetOrgPerson, or correct directory.flavour."
	}
	return Outcome{State: Failed, Problem: fmt.Sprintf("The directory refused: %s. %s", ldap.LDAPResultCodeMap[l.ResultCode], cure)}, nil
}

func (s *Session) find(mailbox string) ([]*ldap.Entry, error) {
	return s.search(s.config.Base, ldap.ScopeWholeSubtree, s.config.filterFor(mailbox))
}

func (s *Session) search(base string, scope int, filter string) ([]*ldap.Entry, error) {
	result, err := s.conn.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 2, int(callTime.Seconds()), false,
		filter, asked(), nil))
	if result == nil {
		return nil, err
	}
	return result.Entries, err
}

// asked are both attributes in every form, since directories differ in what they
// take and give.
func asked() []string {
	return []string{"userCertificate", "userCertificate;binary", "userSMIMECertificate", "userSMIMECertificate;binary"}
}

// values are what the entry holds.
type values struct{ certificates, signed [][]byte }

// valuesOf reads the attributes with and without option, each value once.
func (s *Session) valuesOf(e *ldap.Entry) values {
	var v values
	for _, a := range e.Attributes {
		name, _, _ := strings.Cut(a.Name, ";")
		switch {
		case strings.EqualFold(name, "userCertificate"):
			v.certificates = distinct(v.certificates, a.ByteValues)
		case strings.EqualFold(name, "userSMIMECertificate"):
			v.signed = distinct(v.signed, a.ByteValues)
		}
	}
	return v
}

func distinct(list, more [][]byte) [][]byte {
	for _, value := range more {
		if !holds(list, value) {
			list = append(list, value)
		}
	}
	return list
}

// changes adds and deletes certificates one by one, so that what others write at
// the same time stays. The signed values have no equality rule (RFC 2798 §2.8),
// so they can only be replaced as a whole.
func (s *Session) changes(dn string, has values, w Wanted) *ldap.ModifyRequest {
	certificate, signed := s.config.names()
	m := ldap.NewModifyRequest(dn, nil)
	var stale []string
	for _, der := range has.certificates {
		if w.staleCertificate(der) {
			stale = append(stale, string(der))
		}
	}
	if len(stale) > 0 {
		m.Delete(certificate, stale)
	}
	if len(w.Certificate) > 0 && !holds(has.certificates, w.Certificate) {
		m.Add(certificate, []string{string(w.Certificate)})
	}
	var next []string
	for _, value := range has.signed {
		if !w.staleSigned(value) && !bytes.Equal(value, w.Signed) {
			next = append(next, string(value))
		}
	}
	if len(w.Signed) > 0 {
		next = append(next, string(w.Signed))
	}
	if !sameSet(has.signed, next) {
		m.Replace(signed, next)
	}
	return m
}

func (w Wanted) staleCertificate(der []byte) bool {
	if bytes.Equal(der, w.Certificate) {
		return false
	}
	c, err := x509.ParseCertificate(der)
	return err == nil && w.Stale(c)
}

// staleSigned judges by the signer. What is no SignedData, such as a value of
// Outlook's own, is somebody else's.
func (w Wanted) staleSigned(value []byte) (stale bool) {
	if bytes.Equal(value, w.Signed) {
		return false
	}
	defer func() {
		if recover() != nil { // a value that breaks the parser is not ours
			stale = false
		}
	}()
	p, err := pkcs7.Parse(value)
	if err != nil {
		return false
	}
	signer := p.GetOnlySigner()
	if signer == nil {
		return false
	}
	// Another value of a certificate that is wanted is an older one of ours.
	return w.Stale(signer) || bytes.Equal(signer.Raw, w.Certificate)
}

func holds(list [][]byte, value []byte) bool {
	return slices.ContainsFunc(list, func(v []byte) bool { return bytes.Equal(v, value) })
}

func sameSet(a [][]byte, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, value := range b {
		if !holds(a, []byte(value)) {
			return false
		}
	}
	return true
}

// readBack says what is not as it was written; the zero Outcome if all is.
func (s *Session) readBack(dn string, w Wanted) (Outcome, error) {
	entries, err := s.search(dn, ldap.ScopeBaseObject, "(objectClass=*)")
	if err != nil {
		o, err := refused(err)
		o.DN = dn
		return o, err
	}
	bad := Outcome{State: Failed, DN: dn, Problem: "The directory took the change and does not show it; let the bind DN read both attributes, and look whether a copy answers."}
	if len(entries) != 1 {
		return bad, nil
	}
	if len(s.changes(dn, s.valuesOf(entries[0]), w).Changes) > 0 {
		return bad, nil
	}
	return Outcome{}, nil
}
