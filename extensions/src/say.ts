/** Telling the user about something that did not work, outside of the panel. */

import { Notification } from '@jupyterlab/apputils';

import { asProblem } from './api';

/** Run an action that the user asked for; where it fails, say why. Returns whether it went well. */
export async function attempt(action: () => Promise<void>): Promise<boolean> {
  try {
    await action();
    return true;
  } catch (error) {
    const problem = asProblem(error);
    Notification.error(
      [problem.message, problem.nextStep].filter(Boolean).join(' '),
      { autoClose: 10000 }
    );
    return false;
  }
}
