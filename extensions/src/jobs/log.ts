/** The end of a job's log, followed while it is looked at. */

import { Poll } from '@lumino/polling';
import { Widget } from '@lumino/widgets';

import { Api, asProblem, Query } from '../api';
import { Job } from '../resources';
import { hasEnded } from './model';

const TAIL_BYTES = 64 * 1024;
const MAX_CHARACTERS = 1024 * 1024;
const PAUSE_MS = 2000;

export class JobLog extends Widget {
  constructor(
    private readonly api: Api,
    private readonly job: string
  ) {
    super();
    this.addClass('tp-log');
    this.said.className = 'tp-log-said';
    this.said.setAttribute('role', 'status');
    this.text.tabIndex = 0;
    this.text.setAttribute('aria-label', 'Log');
    this.node.append(this.said, this.text);
    this.poll = new Poll({
      name: 'torpor:log',
      factory: () => this.look(),
      frequency: { interval: PAUSE_MS, backoff: true, max: 30000 },
      standby: () => (this.isVisible ? 'when-hidden' : true)
    });
  }

  dispose(): void {
    this.poll.dispose();
    super.dispose();
  }

  private async look(): Promise<void> {
    try {
      const job = await this.api.get<Job>(`jobs/${this.job}`);
      const from: Query = this.next === null ? { tail: TAIL_BYTES } : { offset: this.next };
      const piece = await this.api.log(`jobs/${this.job}/log`, from);
      this.print(job, piece.attempt, piece.text);
      this.next = piece.next;
      if (hasEnded(job) && !piece.text) {
        void this.poll.stop();
      }
    } catch (error) {
      const problem = asProblem(error);
      this.said.textContent = `${problem.message} ${problem.nextStep}`;
      throw error;
    }
  }

  private print(job: Job, attempt: string, text: string): void {
    const atEnd =
      this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 8;
    if (attempt !== this.attempt) {
      this.text.textContent = '';
      this.attempt = attempt;
    }
    const { message, next_step } = job.status;
    this.said.textContent = [message, next_step].filter(Boolean).join(' ');
    if (text) {
      const all = (this.text.textContent ?? '') + text;
      this.text.textContent = all.slice(-MAX_CHARACTERS);
    }
    if (atEnd) {
      this.text.scrollTop = this.text.scrollHeight;
    }
  }

  private readonly said = document.createElement('div');
  private readonly text = document.createElement('pre');
  private readonly poll: Poll;
  private next: number | null = null;
  private attempt = '';
}
