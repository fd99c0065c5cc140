package schedule

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// TestPlanned compares what a forecast takes for the next slot with what the server makes of it.
func TestPlanned(t *testing.T) {
	db := pgtest.NewDB(t)
	db.Exec("create materialized view public.v as select 1 as id")
	db.Schedule("public.v", "1 hour")
	const serverSQL = `
		select p.next_run_at - p.next_run_offset, p.next_run_at, hashint8extended($6::bigint, $7::bigint)
		  from mvsched.materialized_view_refresh_schedule s
		 cross join lateral mvsched.planned(jsonb_populate_record(s, jsonb_build_object('id', $6::bigint,
		        'refresh_interval', make_interval(secs => $1::float8), 'timezone', $2::text, 'jitter', make_interval(secs => $3::float8),
		        'window_start', make_interval(secs => $4::float8)::time, 'window_end', make_interval(secs => $5::float8)::time)),
		        $8::timestamptz) p`
	seed := time.Now().UnixNano()
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "America/St_Johns"}
	changes := []time.Time{ // of clocks: Berlin twice, New York, Lord Howe, Apia
		time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC), time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC), time.Date(2026, 11, 1, 6, 0, 0, 0, time.UTC),
		time.Date(2026, 4, 4, 15, 0, 0, 0, time.UTC), time.Date(2011, 12, 30, 10, 0, 0, 0, time.UTC),
	}
	duration := func(most time.Duration) *time.Duration {
		if random.IntN(2) == 0 {
			return nil
		}
		d := time.Duration(1+random.Int64N(int64(most/time.Second))) * time.Second
		return &d
	}
	for range 3000 {
		zone := zones[random.IntN(len(zones))]
		slot := changes[random.IntN(len(changes))].Add(time.Duration(random.Int64N(int64(60*time.Hour))) - 30*time.Hour).Truncate(time.Microsecond)
		s := Schedule{ID: random.Int64() - random.Int64(), Every: duration(3 * Day), Timezone: zone}
		if s.Every != nil {
			s.Jitter = duration(*s.Every)
		}
		if random.IntN(4) > 0 {
			s.Window = &Window{Start: TimeOfDay(time.Duration(random.IntN(24*60)) * time.Minute), End: TimeOfDay(time.Duration(random.IntN(24*60)) * time.Minute)}
			if s.Window.Start == s.Window.End {
				s.Window.End = (s.Window.Start + TimeOfDay(time.Hour)) % TimeOfDay(Day)
			}
		}
		location, err := loadZone(zone)
		if err != nil {
			t.Fatal(err)
		}
		var start, end *float64
		if s.Window != nil {
			a, b := time.Duration(s.Window.Start), time.Duration(s.Window.End)
			start, end = seconds(&a), seconds(&b)
		}
		hashSeed := random.Int64() - random.Int64()
		var wantSlot, wantDue time.Time
		var wantHash int64
		if err := db.Pool.QueryRow(context.Background(), serverSQL, seconds(s.Every), zone, seconds(s.Jitter), start, end, s.ID, hashSeed, slot).
			Scan(&wantSlot, &wantDue, &wantHash); err != nil {
			t.Fatal(err)
		}
		if got := hashInt8(s.ID, hashSeed); got != uint64(wantHash) {
			t.Fatalf("hash of %d, %d: %x, want %x", s.ID, hashSeed, got, uint64(wantHash))
		}
		moved, due := s.planned(slot, location)
		if !moved.Equal(wantSlot) || due.Sub(wantDue).Abs() > time.Microsecond {
			t.Errorf("seed %d: %+v window %v every %v jitter %v, slot %v:\n got %v due %v\nwant %v due %v", seed, s.Timezone, s.Window, s.Every, s.Jitter,
				slot.In(location), moved.In(location), due.In(location), wantSlot.In(location), wantDue.In(location))
		}
	}
}
