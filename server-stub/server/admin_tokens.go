package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
)

const (
	maxTokenLife = 366 * 24 * time.Hour
	maxTokenUses = 1_000_000
	tokenPrefix  = "join-"
)

// CreateToken makes a join token of at least 128 random bits. Only its hash is kept.
func (a *admin) CreateToken(ctx context.Context, req *controlv1.CreateTokenRequest) (*controlv1.CreateTokenResponse, error) {
	life := a.settings.TokenLife
	if req.GetLife() != nil && req.GetLife().AsDuration() != 0 {
		life = req.GetLife().AsDuration()
	}
	if life < 0 || life > maxTokenLife || req.GetMaxUses() > maxTokenUses || len(req.GetLabel()) > maxText {
		return nil, status.Error(codes.InvalidArgument, "A token lives at most 366 days, has at most 1000000 uses and a label of at most 512 bytes.")
	}
	text := tokenPrefix + rand.Text()
	key := sha256.Sum256([]byte(text))
	token := store.Token{
		ID: hex.EncodeToString(key[:6]), Label: req.GetLabel(), MaxUses: max(req.GetMaxUses(), 1),
		Created: a.now(), Expires: a.now().Add(life), NeedsApproval: req.GetNeedsApproval(),
	}
	err := a.store.Update(ctx, func(tx store.Tx) error { return store.PutJSON(tx, store.Tokens, key[:], token) })
	if err != nil {
		return nil, err
	}
	return &controlv1.CreateTokenResponse{Token: text, Info: wireToken(token)}, nil
}

func wireToken(t store.Token) *controlv1.Token {
	return &controlv1.Token{
		Id: t.ID, Label: t.Label, MaxUses: t.MaxUses, Uses: t.Uses, Created: timestamppb.New(t.Created),
		Expires: timestamppb.New(t.Expires), Revoked: t.Revoked, NeedsApproval: t.NeedsApproval,
	}
}

// ListTokens lists all tokens, without their texts.
func (a *admin) ListTokens(context.Context, *controlv1.ListTokensRequest) (*controlv1.ListTokensResponse, error) {
	resp := &controlv1.ListTokensResponse{}
	err := a.store.View(func(tx store.Tx) error {
		return store.EachJSON(tx, store.Tokens, nil, func(_ []byte, token store.Token) bool {
			resp.Tokens = append(resp.Tokens, wireToken(token))
			return true
		})
	})
	return resp, err
}

// RevokeToken ends a token at once; machines that joined with it stay.
func (a *admin) RevokeToken(ctx context.Context, req *controlv1.RevokeTokenRequest) (*controlv1.RevokeTokenResponse, error) {
	err := a.store.Update(ctx, func(tx store.Tx) error {
		var key []byte
		var found store.Token
		err := store.EachJSON(tx, store.Tokens, nil, func(k []byte, token store.Token) bool {
			if token.ID == req.GetId() {
				key, found = append([]byte(nil), k...), token
			}
			return key == nil
		})
		if err != nil {
			return err
		}
		if key == nil {
			return status.Errorf(codes.NotFound, "There is no token %q; \"token list\" shows them.", req.GetId())
		}
		found.Revoked = true
		return store.PutJSON(tx, store.Tokens, key, found)
	})
	return &controlv1.RevokeTokenResponse{}, err
}
