/** Something on the platform that is looked at again and again while somebody watches. */

import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { asProblem, Problem } from './api';

/** `value` stays what it was while `problem` says why it cannot be renewed. */
export interface ISeen<T> {
  readonly value: T | null;
  readonly problem: Problem | null;
}

export class Polled<T> {
  /**
   * @param pause - the milliseconds to the next look, from what was seen last
   */
  constructor(
    name: string,
    private readonly look: () => Promise<T>,
    private readonly pause: (value: T) => number
  ) {
    this.poll = new Poll({
      name,
      auto: false,
      factory: () => this.renew(),
      frequency: { interval: 5000, backoff: true, max: 60000 },
      standby: 'when-hidden'
    });
  }

  get seen(): ISeen<T> {
    return this.state;
  }

  get changed(): ISignal<this, void> {
    return this.signal;
  }

  /** Keep looking until the returned function is called. */
  watch(): () => void {
    this.watchers += 1;
    if (this.watchers === 1) {
      void this.poll.start();
      void this.poll.refresh();
    }
    let watching = true;
    return () => {
      this.watchers -= watching ? 1 : 0;
      watching = false;
      if (this.watchers === 0) {
        void this.poll.stop();
      }
    };
  }

  /** Look now, if somebody watches. */
  async refresh(): Promise<void> {
    if (this.watchers > 0) {
      await this.poll.refresh();
      await this.poll.tick;
    }
  }

  /** Take what a write answered as seen. */
  take(value: T): void {
    this.turn += 1;
    this.show({ value, problem: null });
  }

  private async renew(): Promise<void> {
    const turn = ++this.turn;
    try {
      const value = await this.look();
      if (turn === this.turn) {
        this.poll.frequency = {
          ...this.poll.frequency,
          interval: this.pause(value)
        };
        this.show({ value, problem: null });
      }
    } catch (error) {
      if (turn === this.turn) {
        this.show({ value: this.state.value, problem: asProblem(error) });
      }
      throw error;
    }
  }

  private show(seen: ISeen<T>): void {
    if (
      seen.value !== this.state.value ||
      seen.problem !== this.state.problem
    ) {
      this.state = seen;
      this.signal.emit();
    }
  }

  private readonly poll: Poll;
  private readonly signal = new Signal<this, void>(this);
  private state: ISeen<T> = { value: null, problem: null };
  private watchers = 0;
  private turn = 0;
}
