package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/metrics"
	"smime-agent/server-stub/store"
)

// backupPiece is how much of a backup one message carries.
const backupPiece = 1 << 20

// Backup streams a copy of the records. It is made on this machine's disk first,
// so that a slow client does not hold the records' pages.
func (a *admin) Backup(_ *controlv1.BackupRequest, stream grpc.ServerStreamingServer[controlv1.BackupResponse]) (err error) {
	file, err := os.CreateTemp(a.scratch, "backup-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()); _ = file.Close() }() // a copy that nobody needs
	if err := a.store.Snapshot(file); err != nil {
		return fmt.Errorf("copy records: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	piece := make([]byte, backupPiece)
	for {
		n, err := io.ReadFull(file, piece)
		sum.Write(piece[:n])
		resp := &controlv1.BackupResponse{Piece: piece[:n]}
		last := err == io.EOF || err == io.ErrUnexpectedEOF //nolint:errorlint // io.ReadFull gives these two as they are
		if err != nil && !last {
			return err
		}
		if last {
			resp.Sha256 = sum.Sum(nil)
		}
		if err := stream.Send(resp); err != nil || last {
			return err
		}
	}
}

// Facts are the figures that are looked up when somebody asks.
func (s *Server) Facts() (metrics.Facts, error) {
	f := metrics.Facts{IssuingEnds: s.issuer.Certificate().NotAfter, Held: int(s.held.Load())}
	s.fleet.mu.Lock()
	f.Devices = len(s.fleet.devices)
	s.fleet.mu.Unlock()
	f.Connections, f.Handshakes = s.door.Counts()
	err := s.store.View(func(tx store.Tx) error {
		tx.Range(store.Pending, nil, nil, func([]byte, []byte) bool { f.Pending++; return true })
		return nil
	})
	if err != nil {
		return f, err
	}
	der, err := s.rootCRL()
	if err != nil {
		return f, err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return f, err
	}
	f.RootListEnds = list.NextUpdate
	return f, nil
}

// Healthy writes something and waits until it is on the disk.
func (s *Server) Healthy(ctx context.Context) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		return tx.Put(store.Meta, []byte("health"), []byte(s.now().UTC().Format("2006-01-02T15:04:05Z")))
	})
}
