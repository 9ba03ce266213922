package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/report"
	"smime-agent/server-stub/roster"
	"smime-agent/server-stub/store"
)

const (
	maxToken = 256
	maxText  = report.MaxText
)

// Join admits a machine. The token is judged, burned and recorded together with
// the device in one transaction; the certificate is signed before, and thrown
// away if the transaction refuses.
func (s *Server) Join(ctx context.Context, req *controlv1.JoinRequest) (*controlv1.JoinResponse, error) {
	if len(req.GetToken()) == 0 || len(req.GetToken()) > maxToken {
		return nil, refuse(controlv1.Reason_REASON_TOKEN_UNKNOWN, "The join token is empty or too long.")
	}
	facts, err := factsOf(req.GetFacts())
	if err != nil {
		return nil, err
	}
	csr, err := identityCSR(req.GetCsr())
	if err != nil {
		return nil, err
	}
	tokenKey := sha256.Sum256([]byte(req.GetToken()))
	j := &joining{
		token: tokenKey[:], key: csr.RawSubjectPublicKeyInfo, csr: csr, facts: facts, now: s.now(),
	}
	// A look first, so that who has no token costs no signature.
	if err := s.store.View(j.look); err != nil {
		return nil, err
	}
	if err := s.signIdentity(j); err != nil {
		return nil, err
	}
	if err := s.store.Update(ctx, j.commit); err != nil {
		return nil, err
	}
	return s.joined(j), nil
}

func (s *Server) joined(j *joining) *controlv1.JoinResponse {
	resp := &controlv1.JoinResponse{
		DeviceId: j.result.ID, Chain: [][]byte{j.result.Identity, s.transport.Cert.Raw},
		ServerTime: timestamppb.New(s.now()),
	}
	if force := s.current.Load(); force != nil {
		resp.Organization = force.policy.Organization.Name
	}
	return resp
}

// identityCSR wants a P-256 key, the only kind that device identities have.
func identityCSR(der []byte) (*x509.CertificateRequest, error) {
	csr, err := ca.ParseCSR(der)
	if err != nil {
		return nil, refuse(controlv1.Reason_REASON_CSR_INVALID, "The certificate request cannot be used: %v.", err)
	}
	if _, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, refuse(controlv1.Reason_REASON_CSR_INVALID, "A device's key must be P-256.")
	}
	if kind, err := ca.KeyKind(csr.PublicKey); err != nil || kind != ca.P256 {
		return nil, refuse(controlv1.Reason_REASON_CSR_INVALID, "A device's key must be P-256.")
	}
	return csr, nil
}

func factsOf(f *controlv1.DeviceFacts) (store.Device, error) {
	d := store.Device{
		Hostname: f.GetHostname(), OS: f.GetOs(), OSVersion: f.GetOsVersion(),
		AgentVersion: f.GetAgentVersion(), MachineID: f.GetMachineIdHash(),
	}
	return d, boundedText(d.Hostname, d.OS, d.OSVersion, d.AgentVersion, d.MachineID)
}

func boundedText(texts ...string) error { return malformed(report.Text(texts...)) }

// malformed is the refusal of a message that breaks a bound.
func malformed(err error) error {
	if err == nil {
		return nil
	}
	return refuse(controlv1.Reason_REASON_MALFORMED, "The message is refused: %v.", err)
}

// joining is one call of Join on its way.
type joining struct {
	token []byte // SHA-256
	key   []byte // SubjectPublicKeyInfo
	csr   *x509.CertificateRequest
	facts store.Device
	now   time.Time

	// fresh is the device as it will be if it is new; again says that it is not.
	fresh  store.Device
	again  bool
	result store.Device
}

// index binds the token to the first key that used it.
func (j *joining) index() []byte {
	h := sha256.New()
	h.Write(j.token)
	h.Write(j.key)
	return h.Sum(nil)
}

// look finds the device of an earlier call, or judges the token.
func (j *joining) look(tx store.Tx) error {
	j.again = false
	if id := tx.Get(store.Joins, j.index()); id != nil {
		j.again = true
		if _, err := store.GetJSON(tx, store.Devices, id, &j.result); err != nil {
			return err
		}
		if j.result.State == store.Removed {
			return judgeState(store.Removed)
		}
		return nil
	}
	var token store.Token
	found, err := store.GetJSON(tx, store.Tokens, j.token, &token)
	if err != nil {
		return err
	}
	return judgeToken(found, token, j.now)
}

func judgeToken(found bool, t store.Token, now time.Time) error {
	switch {
	case !found:
		return refuse(controlv1.Reason_REASON_TOKEN_UNKNOWN, "This server does not know the join token.")
	case t.Revoked:
		return refuse(controlv1.Reason_REASON_TOKEN_REVOKED, "An administrator revoked the join token.")
	case now.After(t.Expires):
		return refuse(controlv1.Reason_REASON_TOKEN_EXPIRED, "The join token has expired.")
	case t.Uses >= t.MaxUses:
		return refuse(controlv1.Reason_REASON_TOKEN_USED_UP, "The join token has been used as often as it may be.")
	}
	return nil
}

// signIdentity makes the certificate that is still needed.
func (s *Server) signIdentity(j *joining) error {
	j.fresh = j.facts
	j.fresh.ID = newDeviceID(j.now)
	if j.again {
		// Not IdentityEnds, which renewals put off: of what they gave nothing is kept.
		if first, err := x509.ParseCertificate(j.result.Identity); err == nil && j.now.Before(first.NotAfter) {
			return nil
		}
		j.fresh.ID = j.result.ID
	}
	cert, err := s.transport.IssueIdentity(ca.DeviceRole, j.fresh.ID, j.csr.PublicKey, j.now, s.settings.IdentityLife)
	if err != nil {
		return err
	}
	j.fresh.Identity, j.fresh.IdentityEnds = cert.Raw, cert.NotAfter
	return nil
}

// commit does all of a join at once.
func (j *joining) commit(tx store.Tx) error {
	if err := j.look(tx); err != nil {
		return err
	}
	if j.again {
		if j.fresh.Identity == nil || j.fresh.ID != j.result.ID {
			return nil // the certificate of the earlier call still holds
		}
		j.result.Identity, j.result.IdentityEnds = j.fresh.Identity, j.fresh.IdentityEnds
		return roster.PutDevice(tx, j.result)
	}
	var token store.Token
	if _, err := store.GetJSON(tx, store.Tokens, j.token, &token); err != nil {
		return err
	}
	token.Uses++
	device := j.fresh
	device.State, device.Joined, device.TokenID = store.Admitted, j.now, token.ID
	if token.NeedsApproval {
		device.State = store.Waiting
	}
	j.result = device
	if err := store.PutJSON(tx, store.Tokens, j.token, token); err != nil {
		return err
	}
	if err := roster.PutDevice(tx, device); err != nil {
		return err
	}
	return tx.Put(store.Joins, j.index(), []byte(device.ID))
}

// newDeviceID is 48 bits of time and 48 random ones, so that devices are filed in order.
func newDeviceID(now time.Time) string {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], uint64(max(now.UnixMilli(), 0)))
	id := append(raw[2:8:8], make([]byte, 6)...)
	_, _ = rand.Read(id[6:])
	return hex.EncodeToString(id)
}

// RenewIdentity issues the next device certificate. Called again after a lost
// answer it issues another, which does no harm.
func (s *Server) RenewIdentity(ctx context.Context, req *controlv1.RenewIdentityRequest) (*controlv1.RenewIdentityResponse, error) {
	csr, err := identityCSR(req.GetCsr())
	if err != nil {
		return nil, err
	}
	id, now := deviceOf(ctx), s.now()
	cert, err := s.transport.IssueIdentity(ca.DeviceRole, id, csr.PublicKey, now, s.settings.IdentityLife)
	if err != nil {
		return nil, err
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		var device store.Device
		found, err := store.GetJSON(tx, store.Devices, []byte(id), &device)
		if err != nil {
			return err
		}
		if !found || device.State != store.Admitted {
			return judgeState(store.Removed)
		}
		device.IdentityEnds = cert.NotAfter
		return roster.PutDevice(tx, device)
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RenewIdentityResponse{
		Chain: [][]byte{cert.Raw, s.transport.Cert.Raw}, ServerTime: timestamppb.New(now),
	}, nil
}
