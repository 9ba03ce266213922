//go:build !linux

package platform

import (
	"context"
	"time"
)

func ticks(ctx context.Context, every time.Duration, tick func()) { ticksByTimer(ctx, every, tick) }
