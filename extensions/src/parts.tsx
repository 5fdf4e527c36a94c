/** Small pieces of which all sections are made. */

import { caretDownIcon, caretRightIcon, LabIcon } from '@jupyterlab/ui-components';
import React, {
  useCallback,
  useId,
  useState,
  useSyncExternalStore
} from 'react';

import { Problem } from './api';
import { ISeen, Polled } from './polled';

/** Render again whenever `polled` has seen something new. */
export function useSeen<T>(polled: Polled<T>): ISeen<T> {
  const subscribe = useCallback(
    (again: () => void) => {
      polled.changed.connect(again);
      return () => void polled.changed.disconnect(again);
    },
    [polled]
  );
  return useSyncExternalStore(subscribe, () => polled.seen);
}

export function Section(props: {
  title: string;
  count?: number;
  /** Its share of the height that is left. */
  grows?: number;
  actions?: React.ReactNode;
  children: React.ReactNode;
}): JSX.Element {
  const [open, setOpen] = useState(true);
  const id = useId();
  const Caret = open ? caretDownIcon : caretRightIcon;
  return (
    <section
      className={`tp-section ${props.grows && open ? 'tp-mod-grows' : ''}`}
      style={open ? { flexGrow: props.grows } : undefined}
      aria-labelledby={`${id}-title`}
    >
      <header className="tp-section-header">
        <h2 id={`${id}-title`}>
          <button
            className="tp-section-toggle"
            aria-expanded={open}
            aria-controls={`${id}-body`}
            onClick={() => setOpen(!open)}
          >
            <Caret.react tag="span" className="tp-icon" />
            {props.title}
            {props.count !== undefined && (
              <span className="tp-count">{props.count}</span>
            )}
          </button>
        </h2>
        {props.actions}
      </header>
      <div id={`${id}-body`} className="tp-section-body" hidden={!open}>
        {open && props.children}
      </div>
    </section>
  );
}

export function IconButton(props: {
  icon: LabIcon;
  label: string;
  onClick: (event: React.MouseEvent) => void;
  disabled?: boolean;
  tabIndex?: number;
}): JSX.Element {
  return (
    <button
      className="tp-icon-button"
      title={props.label}
      aria-label={props.label}
      disabled={props.disabled}
      tabIndex={props.tabIndex}
      onClick={props.onClick}
    >
      <props.icon.react tag="span" className="tp-icon" />
    </button>
  );
}

export function TextButton(props: {
  icon?: LabIcon;
  label: string;
  title?: string;
  onClick: (event: React.MouseEvent) => void;
  disabled?: boolean;
}): JSX.Element {
  return (
    <button
      className="tp-button"
      title={props.title}
      disabled={props.disabled}
      onClick={props.onClick}
    >
      {props.icon && <props.icon.react tag="span" className="tp-icon" />}
      {props.label}
    </button>
  );
}

const TONES: Record<string, string> = {
  RUNNING: 'good',
  SUCCEEDED: 'good',
  READY: 'good',
  STARTING: 'busy',
  WAKING: 'busy',
  SLEEPING: 'busy',
  IMPORTING: 'busy',
  SUBMITTED: 'busy',
  ADMITTED: 'busy',
  CANCELLING: 'busy',
  DELETING: 'busy',
  QUEUED: 'waiting',
  PREEMPTED: 'waiting',
  STALE: 'waiting',
  UNREACHABLE: 'waiting',
  STOPPED: 'waiting',
  FAILED: 'bad'
};

/** A coloured dot and the word that it stands for. */
export function Phase(props: {
  phase: string;
  short?: boolean;
  /** It was so when last seen. */
  old?: boolean;
}): JSX.Element {
  const word = wordOf(props.phase);
  return (
    <span
      className={`tp-phase ${props.old ? 'tp-mod-old' : ''}`}
      title={props.short ? word : undefined}
    >
      <span className={`tp-dot tp-mod-${TONES[props.phase] ?? 'quiet'}`} />
      <span className={props.short ? 'tp-hidden' : ''}>{word}</span>
    </span>
  );
}

export function wordOf(phase: string): string {
  return phase.charAt(0) + phase.slice(1).toLowerCase();
}

/** What the platform says, in its own words. */
export function Said(props: {
  message?: string | null;
  nextStep?: string | null;
  bad?: boolean;
}): JSX.Element | null {
  if (!props.message && !props.nextStep) {
    return null;
  }
  return (
    <div
      className={`tp-said ${props.bad ? 'tp-mod-bad' : ''}`}
      role={props.bad ? 'alert' : undefined}
    >
      {props.message && <p>{props.message}</p>}
      {props.nextStep && <p className="tp-next-step">{props.nextStep}</p>}
    </div>
  );
}

/** Why something cannot be seen, unless another section has `said` the same. */
export function Trouble(props: {
  problem: Problem | null;
  said?: Problem | null;
}): JSX.Element | null {
  return props.problem && props.problem.message !== props.said?.message ? (
    <Said
      message={props.problem.message}
      nextStep={props.problem.nextStep}
      bad
    />
  ) : null;
}

/** A time for people. */
export function asOf(time: string | null): string {
  return time
    ? new Date(time).toLocaleString(undefined, {
        day: 'numeric',
        month: 'short',
        hour: '2-digit',
        minute: '2-digit',
        hour12: false
      })
    : '';
}

export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const step = Math.min(
    Math.floor(Math.log2(Math.max(count, 1)) / 10),
    units.length - 1
  );
  const amount = count / 1024 ** step;
  return `${amount.toLocaleString(undefined, {
    maximumFractionDigits: amount < 10 && step > 0 ? 1 : 0
  })} ${units[step]}`;
}

export function cellText(value: unknown): string {
  if (value === null || value === undefined) {
    return '';
  }
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
