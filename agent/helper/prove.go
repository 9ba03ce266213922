package helper

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/smime"
	"smime-agent/platform"
)

// What a proof can fail of: one sentence each, for the report and for central
// management.
const (
	failedChainUnreadable = "The recorded certificate cannot be read."
	failedOtherKey        = "The key in the store is not the certificate's key."
	failedNotInStore      = "The certificate is no longer in the store."
	failedIssuers         = "The store does not have the issuers, so mail programs cannot build the chain."
	failedExpired         = "The certificate is not valid at this time."
	failedChain           = "No valid chain for e-mail leads to an anchor of the organization."
	failedMailbox         = "The certificate is for another mailbox."
	failedSign            = "Signing a test message failed."
	failedVerify          = "The signature of a test message does not verify."
	failedEncrypt         = "A test message cannot be encrypted to the certificate."
	failedDecrypt         = "Decrypting a test message failed."
)

// Prove signs a test message through the store and verifies it, encrypts one and
// decrypts it through the store, and looks whether the chain is where mail
// programs look. For a kept credential only decryption counts, and its time may
// be over. A credential that does not work is a Proof with a Failure; a store
// that is locked or gone, or a key that is missing, is an error.
func (s *Session) Prove(ctx context.Context, w enroll.ProofWanted) (enroll.Proof, error) {
	return run(ctx, s, job[enroll.Proof]{w.Store, w.ID, w.Modules, func(ctx context.Context, store platform.Store) (enroll.Proof, error) {
		p := &proving{session: s, store: store, wanted: w, now: w.Now}
		if w.Now.IsZero() { // an older service's task
			p.now = s.Now()
		}
		p.proof = enroll.Proof{At: p.now, Protection: string(store.Info().Protection)}
		err := p.prove(ctx)
		return p.proof, err
	}})
}

// proving is one proof on its way.
type proving struct {
	session *Session
	store   platform.Store
	wanted  enroll.ProofWanted
	now     time.Time

	key            platform.Key
	chain, anchors []*x509.Certificate
	proof          enroll.Proof
}

// fails keeps the first failure; the later ones often follow from it.
func (p *proving) fails(sentence string) {
	if p.proof.Failure == "" {
		p.proof.Failure = sentence
	}
}

func (p *proving) prove(ctx context.Context) (err error) {
	if p.chain, err = parse(p.wanted.Chain); err != nil {
		p.fails(failedChainUnreadable)
		return nil
	}
	p.anchors, _ = parse(p.wanted.Anchors) // none, or bad ones: then no chain is good
	if p.key, err = p.session.openKey(ctx, p.store, p.wanted.ID); err != nil {
		return err
	}
	defer closeKey(p.key)
	if !sameKey(p.chain[0].PublicKey, p.key.Public()) {
		p.fails(failedOtherKey)
		return nil
	}
	p.checkChain()
	if err := p.checkStore(ctx); err != nil {
		return err
	}
	if p.wanted.Sign && !p.wanted.Kept {
		if err := p.sign(); err != nil {
			return err
		}
	}
	if p.wanted.Encrypt {
		return p.decrypt(ctx)
	}
	return nil
}

// checkChain believes no chain but to the anchors of policy. A kept certificate
// is judged as of its last second.
func (p *proving) checkChain() {
	leaf, at := p.chain[0], p.now
	if p.wanted.Kept && at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	err := smime.VerifyChain(leaf, p.chain[1:], p.anchors, at)
	p.proof.ChainOK = err == nil
	switch {
	case err == nil || p.wanted.Kept:
	case at.Before(leaf.NotBefore) || at.After(leaf.NotAfter):
		p.fails(failedExpired)
	default:
		p.fails(failedChain)
	}
}

// checkStore looks where mail programs look.
func (p *proving) checkStore(ctx context.Context) error {
	found, err := p.store.Find(ctx, platform.KeyID(p.wanted.ID))
	if err != nil && !errors.Is(err, platform.ErrNotFound) {
		return p.session.failure(aboutStore, p.wanted.Store, fmt.Errorf("find certificate of %s: %w", p.wanted.ID, err))
	}
	leaf := p.chain[0]
	switch {
	case len(found) == 0:
		p.fails(failedNotInStore)
	case p.wanted.Kept && sameKey(found[0].PublicKey, leaf.PublicKey) && !found[0].NotBefore.Before(leaf.NotBefore):
		// The store names the newest for a key that serves again; older ones are
		// not asked for. Issuers matter to who signs, not to who decrypts.
	case !found[0].Equal(leaf):
		p.fails(failedNotInStore)
	case missingFrom(found, p.chain) != nil:
		p.fails(failedIssuers)
	}
	return nil
}

// sign proves signing. What is signed is random: the proof is no way to get a
// signature of a text.
func (p *proving) sign() error {
	content := nonce()
	leaf := p.chain[0]
	message, err := smime.Sign(content, leaf, p.chain[1:], p.key, smime.SignOptions{Time: p.now})
	if err != nil {
		return p.judge(err, failedSign)
	}
	signed, err := smime.Verify(message, nil, smime.Expected{Mailbox: p.wanted.Mailbox, Anchors: p.anchors, At: p.now})
	switch {
	case errors.Is(err, smime.ErrMailbox):
		p.fails(failedMailbox)
	case errors.Is(err, smime.ErrChain):
		p.fails(failedChain) // unless checkChain has said why
	case err != nil || !bytes.Equal(signed.Content, content):
		p.fails(failedVerify)
		return nil
	}
	p.proof.Signs = true
	p.adds(signed.Algorithm)
	return nil
}

// decrypt proves decryption, with the cipher that every mail program reads.
func (p *proving) decrypt(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	content := nonce()
	leaf := p.chain[0]
	message, err := smime.Encrypt(content, []*x509.Certificate{leaf}, smime.EncryptOptions{})
	if err != nil {
		p.fails(failedEncrypt)
		return nil
	}
	opened, err := smime.Decrypt(message, leaf, p.key)
	if err != nil {
		return p.judge(err, failedDecrypt)
	}
	if !bytes.Equal(opened.Content, content) {
		p.fails(failedDecrypt)
		return nil
	}
	p.proof.Decrypts = true
	p.adds(opened.KeyAlgorithm)
	p.adds(opened.ContentAlgorithm)
	return nil
}

func (p *proving) adds(algorithm string) {
	if !slices.Contains(p.proof.Algorithms, algorithm) {
		p.proof.Algorithms = append(p.proof.Algorithms, algorithm)
	}
}

// judge tells a key that somebody must unlock, or that is gone, from a
// credential that does not work.
func (p *proving) judge(err error, sentence string) error {
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded, platform.ErrLocked, platform.ErrDenied, platform.ErrNotFound} {
		if errors.Is(err, cause) {
			return p.session.failure(aboutKey, p.wanted.Store, fmt.Errorf("use key %s: %w", p.wanted.ID, err))
		}
	}
	p.session.Log.Warn("proof failed", "enrollment", p.wanted.ID, "store", p.wanted.Store, "error", err.Error())
	p.fails(sentence)
	return nil
}

func nonce() []byte { return []byte("proof " + rand.Text() + "\r\n") }
